use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

/// Every change of every key, oldest first.
type Model = BTreeMap<Vec<u8>, Vec<(Revision, bool)>>;

#[derive(Debug, Clone)]
enum Step {
    Write(usize, bool),
    /// To a floor this far below the newest revision, with a budget for each slice.
    Sweep(i64, usize),
    /// One slice of a sweep, which other steps may come in between.
    Slice(usize),
    /// Count so far below the newest revision: what that leaves in the nodes must stay true.
    Count(i64),
    /// From here on, the tree as it stands now must not change under this clone.
    Snapshot,
    Rebuild,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        60 => (0..150usize, prop::bool::weighted(0.35)).prop_map(|(key, dead)| Step::Write(key, dead)),
        3 => (0..40i64, 1..12usize).prop_map(|(below, budget)| Step::Sweep(below, budget)),
        8 => (1..5usize).prop_map(Step::Slice),
        8 => (0..40i64).prop_map(Step::Count),
        3 => Just(Step::Snapshot),
        1 => Just(Step::Rebuild),
    ]
}

/// Keys of several lengths, with common beginnings.
fn key(nth: usize) -> Vec<u8> {
    match nth % 3 {
        0 => format!("key/{nth:04}").into_bytes(),
        1 => format!("key/a longer one, beyond two words/{nth}").into_bytes(),
        _ => vec![(nth % 7) as u8; nth / 7 + 1],
    }
}

fn at(changes: &[(Revision, bool)], main: i64) -> Option<Revision> {
    let (revision, dead) = changes.iter().rev().find(|(revision, _)| revision.main <= main)?;
    (!dead).then_some(*revision)
}

fn found(tree: &Tree, keys: Keys<'_>, main: i64) -> Vec<(Vec<u8>, Revision)> {
    let mut found = Vec::new();
    tree.visit(keys, main, |key, entry| {
        found.push((key.to_vec(), entry.revision()));
        ControlFlow::Continue(())
    });
    found
}

fn check(tree: &Tree, model: &Model, main: i64) {
    let expected = |from: &[u8], until: Option<&[u8]>| -> Vec<(Vec<u8>, Revision)> {
        let inside =
            model.range(from.to_vec()..).take_while(|(key, _)| until.is_none_or(|u| &key[..] < u));
        inside.filter_map(|(key, changes)| Some((key.clone(), at(changes, main)?))).collect()
    };
    assert_eq!(found(tree, Keys::ALL, main), expected(&[], None));
    for (nth, until) in [(0, 40), (30, 31), (77, 3), (5, 149), (101, 101)] {
        let (from, until) = (key(nth), key(until));
        let keys = Keys::Range { from: &from, until: Some(&until) };
        let expected = if from < until { expected(&from, Some(&until)) } else { Vec::new() };
        assert_eq!(tree.count(keys, main), expected.len());
        assert_eq!(found(tree, keys, main), expected);
        let open = Keys::Range { from: &from, until: None };
        assert_eq!(tree.count(open, main), found(tree, open, main).len());
        let one = model.get(&from).and_then(|changes| at(changes, main));
        assert_eq!(tree.at(&from, main).map(Entry::revision), one);
    }
}

/// The keep rule, key by key; what is forgotten.
fn forget(model: &mut Model, floor: i64) -> Vec<Revision> {
    let mut forgotten = Vec::new();
    model.retain(|_, changes| {
        let below = changes.iter().filter(|(revision, _)| revision.main <= floor).count();
        let keeps = |&(revision, dead): &(Revision, bool)| !dead || revision.main == floor;
        let keep = usize::from(below > 0 && keeps(&changes[below - 1]));
        forgotten.extend(changes.drain(..below - keep).map(|(revision, _)| revision));
        !changes.is_empty()
    });
    forgotten
}

/// A sweep that is under way.
#[derive(Debug, Default)]
struct Sweeping {
    floor: i64,
    from: Option<Vec<u8>>,
    dropped: Vec<Revision>,
    expected: Vec<Revision>,
}

impl Sweeping {
    fn new(floor: i64, mut expected: Vec<Revision>) -> Self {
        expected.sort_unstable();
        Self { floor, from: Some(Vec::new()), dropped: Vec::new(), expected }
    }

    fn slice(&mut self, tree: &mut Tree, budget: usize) {
        if let Some(from) = self.from.take() {
            self.from = tree.sweep(&from, self.floor, budget, &mut self.dropped);
        }
    }

    fn finish(&mut self, tree: &mut Tree, budget: usize) {
        while self.from.is_some() {
            self.slice(tree, budget);
        }
        self.dropped.sort_unstable();
        assert_eq!(self.dropped, self.expected);
    }
}

fn rebuilt(model: &Model) -> Tree {
    let mut all: Vec<(Revision, &Vec<u8>, Entry)> = Vec::new();
    for (key, changes) in model {
        let mut before = None;
        for &(revision, dead) in changes {
            let entry = Entry::next(before, revision, (!dead).then_some(1));
            before = Some(entry);
            all.push((revision, key, entry));
        }
    }
    all.sort_by_key(|(revision, ..)| *revision);
    // As two threads that take turns in pieces, the later piece first.
    let mut builders = [Builder::default(), Builder::default()];
    for (nth, piece) in all.chunks(7).enumerate().rev() {
        piece.iter().for_each(|(_, key, entry)| builders[nth % 2].push(key, *entry, 0));
    }
    Builder::finish(builders).tree
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tree_finds_and_counts_as_a_map_of_all_changes(steps in prop::collection::vec(step(), 1..600)) {
        let (mut tree, mut model) = (Tree::default(), Model::new());
        let (mut main, mut sub, mut floor) = (1, 0, -1);
        let mut sweeping = Sweeping::default();
        let mut snapshots: Vec<(Tree, Model, i64)> = Vec::new();
        for step in steps {
            match step {
                Step::Write(nth, dead) => {
                    let key = key(nth);
                    let live = model.get(&key).is_some_and(|changes| at(changes, main).is_some());
                    if dead && !live {
                        continue;
                    }
                    // Many writes belong to the revision of the one before, unless that was compacted.
                    (main, sub) = if nth % 4 == 0 && main > floor { (main, sub + 1) } else { (main + 1, 0) };
                    let revision = Revision { main, sub };
                    let before = tree.write(&key, revision, (!dead).then_some(1)).filter(|entry| entry.is_live());
                    let changes = model.entry(key).or_default();
                    let expected = changes.last().filter(|(_, dead)| !dead).map(|(revision, _)| *revision);
                    prop_assert_eq!(before.map(Entry::revision), expected);
                    changes.push((revision, dead));
                }
                Step::Sweep(below, budget) => {
                    sweeping.finish(&mut tree, budget);
                    floor = floor.max(main - below);
                    sweeping = Sweeping::new(floor, forget(&mut model, floor));
                }
                Step::Slice(budget) => sweeping.slice(&mut tree, budget),
                Step::Count(below) => check(&tree, &model, (main - below).max(floor).max(1)),
                Step::Snapshot => snapshots.push((tree.clone(), model.clone(), main)),
                Step::Rebuild => {
                    sweeping.finish(&mut tree, 3);
                    tree = rebuilt(&model);
                }
            }
        }
        sweeping.finish(&mut tree, 1);
        snapshots.push((tree, model, main));
        for (tree, model, main) in &snapshots {
            check(tree, model, *main);
            check(tree, model, NOW);
        }
        let (tree, model, main) = &snapshots[snapshots.len() - 1];
        (floor.max(1)..*main).step_by(5).for_each(|main| check(tree, model, main));
        prop_assert_eq!(tree.live(), found(tree, Keys::ALL, NOW).len());
    }

    #[test]
    fn builder_sorts_any_keys(keys in prop::collection::vec(prop::collection::vec(0..3u8, 0..24), 0..60)) {
        let mut builders = [Builder::default(), Builder::default()];
        let mut model: BTreeMap<Vec<u8>, (Revision, i64)> = BTreeMap::new();
        for (nth, key) in keys.iter().enumerate() {
            let revision = Revision { main: nth as i64 + 2, sub: 0 };
            let lease = nth as i64 % 3;
            builders[nth / 5 % 2].push(key, Entry::put(revision, revision.main, 1, 1), lease);
            model.insert(key.clone(), (revision, lease));
        }
        let built = Builder::finish(builders);
        let expected: Vec<_> = model.iter().map(|(key, (at, _))| (key.clone(), *at)).collect();
        prop_assert_eq!(found(&built.tree, Keys::ALL, NOW), expected);
        let leased = model.iter().filter(|(_, (_, lease))| *lease != 0);
        let leased: Vec<_> = leased.map(|(key, (_, lease))| (Bytes::from(key.clone()), *lease)).collect();
        prop_assert_eq!(built.leases, leased);
    }
}

#[test]
fn tree_shrinks_when_its_keys_are_deleted_and_swept() {
    let mut tree = Tree::default();
    let name = |nth: i64| format!("{nth:06}").into_bytes();
    for nth in 0..1000 {
        tree.write(&name(nth), Revision { main: nth + 2, sub: 0 }, Some(1));
    }
    for nth in (0..1000).filter(|nth| nth % 100 != 0) {
        tree.write(&name(nth), Revision { main: nth + 2000, sub: 0 }, None);
    }
    assert_eq!(tree.count(Keys::ALL, NOW), 10);
    assert_eq!(tree.count(Keys::ALL, 1001), 1000);
    assert_eq!(tree.sweep(&[], 5000, usize::MAX, &mut Vec::new()), None);
    assert!(nodes(&tree.root) <= 10, "{} nodes for 10 keys", nodes(&tree.root));
}

#[test]
fn counts_at_an_old_revision_stay_true_when_nodes_merge() {
    let mut tree = Tree::default();
    let name = |nth: i64| format!("{nth:06}").into_bytes();
    for nth in 0..1000 {
        tree.write(&name(nth), Revision { main: nth + 2, sub: 0 }, Some(1));
    }
    let mut main = 2000;
    let mut delete = |tree: &mut Tree, chosen: fn(i64) -> bool| {
        for nth in (0..1000).filter(|nth| chosen(*nth)) {
            main += 1;
            tree.write(&name(nth), Revision { main, sub: 0 }, None);
        }
        main
    };
    let old = delete(&mut tree, |nth| nth % 25 > 1);
    delete(&mut tree, |nth| nth % 25 == 1);
    let counts = |tree: &Tree| -> Vec<usize> {
        let from = |nth| tree.count(Keys::Range { from: &name(nth), until: None }, old);
        (0..1000).step_by(37).map(from).collect()
    };
    let (before, nodes_before) = (counts(&tree), nodes(&tree.root));
    assert_eq!(before[0], 80);
    tree.sweep(&[], old, usize::MAX, &mut Vec::new());
    assert!(nodes(&tree.root) < nodes_before / 4);
    assert_eq!(counts(&tree), before);
}

fn nodes(child: &Child) -> usize {
    match &*child.node {
        Node::Leaf(_) => 1,
        Node::Inner(inner) => 1 + inner.children().iter().map(nodes).sum::<usize>(),
    }
}
