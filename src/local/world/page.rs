//! Lists in pages.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::local::fault::{Answer, Fault};

/// Most objects of one page, and how many there are when nothing is asked for.
const MOST: usize = 100;

/// Query of a list request.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct PageRequest {
    /// Objects wanted at most; 0 or nothing leaves it to the server.
    pub(crate) page_size: Option<usize>,
    /// Where the last page ended.
    pub(crate) page_token: Option<String>,
    /// Whether deleted ones are listed too.
    #[serde(default)]
    pub(crate) show_deleted: bool,
}

impl PageRequest {
    /// Cuts one page out of `items`, which are sorted by their unique `key`.
    ///
    /// Returns it with the token of the next page, and fails on a token that is none of ours.
    pub(crate) fn cut<T>(
        &self,
        items: impl Iterator<Item = T>,
        key: impl Fn(&T) -> String,
    ) -> Answer<(Vec<T>, Option<String>)> {
        let after = self.after()?;
        let size = match self.page_size.unwrap_or(0) {
            0 => MOST,
            size => size.min(MOST),
        };
        let mut rest =
            items.skip_while(|item| after.as_ref().is_some_and(|after| key(item) <= *after));
        let page: Vec<T> = rest.by_ref().take(size).collect();
        let more = rest.next().is_some();
        let next = page.last().filter(|_| more).map(|last| URL_SAFE_NO_PAD.encode(key(last)));
        Ok((page, next))
    }

    fn after(&self) -> Answer<Option<String>> {
        let Some(token) = self.page_token.as_deref().filter(|token| !token.is_empty()) else {
            return Ok(None);
        };
        URL_SAFE_NO_PAD
            .decode(token)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .map(Some)
            .ok_or_else(|| Fault::invalid("Invalid page_token"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_together_are_the_whole_list() {
        let items: Vec<String> = (0..250).map(|n| format!("item-{n:03}")).collect();
        let mut seen: Vec<String> = Vec::new();
        let mut request = PageRequest { page_size: Some(7), ..PageRequest::default() };
        loop {
            let (page, next) = request.cut(items.iter().cloned(), String::clone).unwrap();
            seen.extend(page);
            let Some(next) = next else { break };
            request.page_token = Some(next);
        }

        assert_eq!(seen, items);
    }

    #[test]
    fn a_foreign_token_is_refused() {
        let request = PageRequest { page_token: Some("?".to_owned()), ..PageRequest::default() };

        assert!(request.cut(std::iter::empty::<String>(), String::clone).is_err());
    }
}
