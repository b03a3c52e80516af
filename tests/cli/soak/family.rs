//! The branches of a run, two generations below the root, and what was confirmed on each.

use super::load::Commit;

/// A branch that is to be there.
pub(crate) struct Branch {
    /// Project and branch.
    pub(crate) name: String,
    /// What it was copied from; nothing for the root.
    pub(crate) source: Option<String>,
    /// Everything that was confirmed on it, and the next key.
    pub(crate) commits: Vec<Commit>,
    pub(crate) next: u64,
}

/// All branches but those of the bundle; the root comes first.
pub(crate) struct Family(Vec<Branch>);

impl Family {
    /// Begins with the root alone.
    pub(crate) fn of(root: &str) -> Self {
        Family(vec![Branch::new(root, None)])
    }

    /// Returns all of them, each after what it was copied from.
    pub(crate) fn all(&self) -> &[Branch] {
        &self.0
    }

    /// Returns one of them.
    pub(crate) fn get(&self, name: &str) -> &Branch {
        self.0.iter().find(|branch| branch.name == name).unwrap()
    }

    /// Returns one of them, to be changed.
    pub(crate) fn get_mut(&mut self, name: &str) -> &mut Branch {
        self.0.iter_mut().find(|branch| branch.name == name).unwrap()
    }

    /// Adds a branch that was copied from `source`.
    pub(crate) fn add(&mut self, name: &str, source: &str) {
        self.0.push(Branch::new(name, Some(source)));
    }

    /// Removes branches.
    pub(crate) fn remove(&mut self, names: &[String]) {
        self.0.retain(|branch| !names.contains(&branch.name));
    }

    /// Returns the names of all that were copied from another.
    pub(crate) fn copies(&self) -> Vec<String> {
        self.0[1..].iter().map(|branch| branch.name.clone()).collect()
    }

    /// Returns the names of the copies of `source`.
    pub(crate) fn copies_of(&self, source: &str) -> Vec<String> {
        let from = |branch: &&Branch| branch.source.as_deref() == Some(source);
        self.0.iter().filter(from).map(|branch| branch.name.clone()).collect()
    }

    /// Returns the names of copies that were copied themselves.
    pub(crate) fn parents(&self) -> Vec<String> {
        self.copies().into_iter().filter(|name| !self.copies_of(name).is_empty()).collect()
    }

    /// Returns the names of copies that nothing was copied from.
    pub(crate) fn leaves(&self) -> Vec<String> {
        self.copies().into_iter().filter(|name| self.copies_of(name).is_empty()).collect()
    }

    /// Returns the names of what may be copied once more below the root.
    pub(crate) fn middle(&self) -> Vec<String> {
        self.copies_of(&self.0[0].name)
    }
}

impl Branch {
    fn new(name: &str, source: Option<&str>) -> Self {
        Branch {
            name: name.to_owned(),
            source: source.map(str::to_owned),
            commits: Vec::new(),
            next: 1,
        }
    }
}
