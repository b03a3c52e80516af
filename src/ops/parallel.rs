//! Independent work at the same time, with a bound.

use std::future::Future;

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::error::Result;

/// How many projects, branches or files are worked on at once.
pub(crate) const AT_ONCE: usize = 8;

/// Does `work` on all `items`, eight at once, and returns the answers in the order of the items.
///
/// Dropped halfway, it stops what is going on.
pub(crate) async fn each<I, F: Future>(
    items: impl IntoIterator<Item = I>,
    work: impl FnMut(I) -> F,
) -> Vec<F::Output> {
    each_up_to(AT_ONCE, items, work).await
}

/// Does `work` on all `items`, at most `limit` at once, and returns the answers in the order of the items.
pub(crate) async fn each_up_to<I, F: Future>(
    limit: usize,
    items: impl IntoIterator<Item = I>,
    work: impl FnMut(I) -> F,
) -> Vec<F::Output> {
    stream::iter(items).map(work).buffered(limit).collect().await
}

/// Does `work` on all `items`, eight at once; the first failure stops the others and is the answer.
pub(crate) async fn all<I, T, F: Future<Output = Result<T>>>(
    items: impl IntoIterator<Item = I>,
    mut work: impl FnMut(I) -> F,
) -> Result<Vec<T>> {
    let numbered = stream::iter(items.into_iter().enumerate()).map(|(index, item)| {
        let work = work(item);
        async move { work.await.map(|answer| (index, answer)) }
    });
    let mut answers: Vec<(usize, T)> = numbered.buffer_unordered(AT_ONCE).try_collect().await?;
    answers.sort_by_key(|(index, _)| *index);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::error::{Error, Kind};

    #[tokio::test]
    async fn answers_keep_the_order_and_the_bound_holds() {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let work = |item: usize| {
            let (now, most) = (&now, &most);
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                for _ in 0..(30 - item) {
                    tokio::task::yield_now().await;
                }
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(item)
            }
        };

        let answers = all(0..30, work).await.unwrap();

        assert_eq!(answers, (0..30).collect::<Vec<_>>());
        assert_eq!(most.load(Ordering::SeqCst), AT_ONCE);
        assert_eq!(each(0..3, |item| async move { item * 2 }).await, [0, 2, 4]);
    }

    #[tokio::test]
    async fn the_first_failure_stops_the_others() {
        let result = all([true, false], |waits| async move {
            if waits {
                std::future::pending::<()>().await;
            }
            Err::<(), _>(Error::new(Kind::Failed, "no"))
        });

        assert_eq!(result.await.unwrap_err().message(), "no");
    }
}
