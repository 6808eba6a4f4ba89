//! What the cases of a run have met: branches, decades of kappa, options.

use std::collections::BTreeMap;

use super::natural;
use super::read::Record;

/// Things of one kind.
pub struct Group<'r> {
    /// What they are: `branch`, `kappa`, `option`.
    pub name: &'r str,
    /// One for each.
    pub rows: Vec<Row<'r>>,
}

/// One thing, and how often it was met.
pub struct Row<'r> {
    pub name: &'r str,
    /// For each subject of the record, in its order.
    pub counts: Vec<u64>,
}

impl Row<'_> {
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Sums over the cells. What a cell lists is there even where no case has met it.
pub fn groups(record: &Record) -> Vec<Group<'_>> {
    let mut groups: BTreeMap<&str, Vec<Row>> = BTreeMap::new();
    for (key, counts) in sums(record) {
        let (group, name) = key.split_once('/').unwrap_or(("other", key));
        groups.entry(group).or_default().push(Row { name, counts });
    }
    let groups = groups.into_iter();
    groups.map(|(name, rows)| sorted(name, rows)).collect()
}

fn sorted<'r>(name: &'r str, mut rows: Vec<Row<'r>>) -> Group<'r> {
    rows.sort_by(|a, b| natural::compare(a.name, b.name));
    Group { name, rows }
}

fn sums(record: &Record) -> BTreeMap<&str, Vec<u64>> {
    let mut sums: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (k, subject) in record.subjects.iter().enumerate() {
        for (key, count) in record
            .cells_of(&subject.name)
            .flat_map(|cell| &cell.coverage)
        {
            let counts = sums.entry(key);
            counts.or_insert_with(|| vec![0; record.subjects.len()])[k] += u64::from(*count);
        }
    }
    sums
}
