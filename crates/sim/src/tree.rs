//! Directories: which names they hold now, and which of that is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};

use crate::Rng;
use crate::file::Contents;

/// Number of a file or directory, never used twice.
pub(crate) type Id = u64;

const ROOT: Id = 0;

#[derive(Debug)]
pub(crate) enum Node {
    File(Contents),
    Dir(Dir),
}

/// Invariant: `pending` applied to `durable` gives `names`.
#[derive(Debug, Default)]
pub(crate) struct Dir {
    names: BTreeMap<String, Id>,
    durable: BTreeMap<String, Id>,
    pending: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Link(String, Id),
    Unlink(String),
    Rename(String, String),
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, Id>) {
        match self {
            Self::Link(name, id) => {
                names.insert(name.clone(), *id);
            }
            Self::Unlink(name) => {
                names.remove(name);
            }
            Self::Rename(from, to) => {
                if let Some(id) = names.remove(from) {
                    names.insert(to.clone(), id);
                }
            }
        }
    }
}

impl Dir {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.pending.push(change);
    }

    fn sync(&mut self) {
        self.durable.clone_from(&self.names);
        self.pending.clear();
    }

    fn lose(&mut self, torn: Option<&mut Rng>) {
        let kept = torn.map_or(0, |rng| rng.below(self.pending.len() as u64 + 1));
        for change in &self.pending[..kept as usize] {
            change.apply(&mut self.durable);
        }
        self.pending.clear();
        self.names.clone_from(&self.durable);
    }
}

/// All files and directories. Files without a name stay, as long as a handle may have them open.
#[derive(Debug)]
pub(crate) struct Tree {
    nodes: BTreeMap<Id, Node>,
    next: Id,
}

impl Default for Tree {
    fn default() -> Self {
        let nodes = BTreeMap::from([(ROOT, Node::Dir(Dir::default()))]);
        Self { nodes, next: ROOT + 1 }
    }
}

impl Tree {
    pub(crate) fn file(&mut self, id: Id) -> &mut Contents {
        match self.nodes.get_mut(&id) {
            Some(Node::File(contents)) => contents,
            _ => panic!("node {id} is no file"),
        }
    }

    pub(crate) fn find_file(&self, path: &Path) -> io::Result<Id> {
        match self.find(path)? {
            (id, Node::File(_)) => Ok(id),
            (_, Node::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(crate) fn create_file(&mut self, path: &Path) -> io::Result<Id> {
        let id = self.next;
        let (dir, name) = self.parent(path)?;
        dir.change(Change::Link(name, id));
        self.next += 1;
        self.nodes.insert(id, Node::File(Contents::default()));
        Ok(id)
    }

    /// Durable at once, as the seam's contract says.
    pub(crate) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        if let Ok((_, Node::Dir(_))) = self.find(path) {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.create_dir(parent)?;
        }
        let id = self.next;
        let (dir, name) = self.parent(path)?;
        if dir.names.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        dir.names.insert(name.clone(), id);
        dir.durable.insert(name, id);
        self.next += 1;
        self.nodes.insert(id, Node::Dir(Dir::default()));
        Ok(())
    }

    pub(crate) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        if from.parent() != to.parent() {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        self.find(from)?;
        if let Ok((_, Node::Dir(target))) = self.find(to)
            && !target.names.is_empty()
        {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let (_, to) = self.parent(to)?;
        let (dir, from) = self.parent(from)?;
        dir.change(Change::Rename(from, to));
        Ok(())
    }

    /// A second name for a file.
    pub(crate) fn link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let id = self.find_file(from)?;
        let (dir, name) = self.parent(to)?;
        if dir.names.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        dir.change(Change::Link(name, id));
        Ok(())
    }

    /// Removes a file, or a directory with all in it.
    pub(crate) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.find(path)?;
        let (dir, name) = self.parent(path)?;
        dir.change(Change::Unlink(name));
        Ok(())
    }

    pub(crate) fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        match self.find(path)? {
            (_, Node::Dir(dir)) => Ok(dir.names.keys().cloned().collect()),
            (_, Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(crate) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let (id, _) = self.find(path)?;
        match self.nodes.get_mut(&id) {
            Some(Node::Dir(dir)) => dir.sync(),
            _ => return Err(io::ErrorKind::NotADirectory.into()),
        }
        Ok(())
    }

    /// Whether a directory has a name for it.
    pub(crate) fn is_named(&self, id: Id) -> bool {
        self.nodes.values().any(|node| match node {
            Node::Dir(dir) => dir.names.values().any(|named| *named == id),
            Node::File(_) => false,
        })
    }

    /// Space taken by all files that still have a name.
    pub(crate) fn reserved_bytes(&self) -> u64 {
        let named = self.nodes.values().filter_map(|node| match node {
            Node::Dir(dir) => Some(dir.names.values()),
            Node::File(_) => None,
        });
        let size = |id: &Id| match &self.nodes[id] {
            Node::File(contents) => contents.reserved,
            Node::Dir(_) => 0,
        };
        // A file with two names takes its space once.
        let files: BTreeSet<&Id> = named.flatten().collect();
        files.into_iter().map(size).sum()
    }

    /// What is left after a power cut.
    pub(crate) fn lose(&mut self, mut torn: Option<Rng>) {
        for node in self.nodes.values_mut() {
            match node {
                Node::File(contents) => contents.lose(torn.as_mut()),
                Node::Dir(dir) => dir.lose(torn.as_mut()),
            }
        }
    }

    fn find(&self, path: &Path) -> io::Result<(Id, &Node)> {
        let mut id = ROOT;
        for name in names(path) {
            let Node::Dir(dir) = &self.nodes[&id] else {
                return Err(io::ErrorKind::NotADirectory.into());
            };
            id = *dir.names.get(&name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok((id, &self.nodes[&id]))
    }

    fn parent(&mut self, path: &Path) -> io::Result<(&mut Dir, String)> {
        let name = names(path).pop().ok_or(io::ErrorKind::InvalidInput)?;
        let (id, _) = self.find(path.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
        match self.nodes.get_mut(&id) {
            Some(Node::Dir(dir)) => Ok((dir, name)),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }
}

fn names(path: &Path) -> Vec<String> {
    let normal = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    });
    normal.collect()
}
