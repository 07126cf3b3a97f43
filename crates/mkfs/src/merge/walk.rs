//! The one order in which a tree is gone through: directory by directory, names by bytes.

use crate::tree::{Body, NodeId, Tree};

/// What happens on the way.
pub(super) trait Visitor {
    /// A directory that was entered.
    type Directory;
    type Error;

    fn enter(
        &mut self,
        directory: &mut Self::Directory,
        path: &[u8],
        name: &[u8],
        id: NodeId,
    ) -> Result<Self::Directory, Self::Error>;

    fn file(
        &mut self,
        directory: &mut Self::Directory,
        path: &[u8],
        name: &[u8],
        id: NodeId,
    ) -> Result<(), Self::Error>;

    /// Everything in it has been visited.
    fn leave(
        &mut self,
        directory: Self::Directory,
        path: &[u8],
        id: NodeId,
    ) -> Result<(), Self::Error>;
}

struct Frame<'a, D> {
    directory: D,
    id: NodeId,
    names: Box<dyn Iterator<Item = (&'a [u8], NodeId)> + 'a>,
    /// Bytes of the path up to this directory.
    len: usize,
}

/// Visits everything below the root, and leaves that. Paths have no slash in front. Depth costs memory, not stack.
pub(super) fn walk<V: Visitor>(
    tree: &Tree,
    root: V::Directory,
    visitor: &mut V,
) -> Result<(), V::Error> {
    let mut path = Vec::new();
    let mut frames = vec![Frame {
        directory: root,
        id: NodeId::ROOT,
        names: Box::new(tree.names(NodeId::ROOT)),
        len: 0,
    }];
    while let Some(frame) = frames.last_mut() {
        path.truncate(frame.len);
        let Some((name, id)) = frame.names.next() else {
            if let Some(frame) = frames.pop() {
                visitor.leave(frame.directory, &path, frame.id)?;
            }
            continue;
        };
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        if matches!(tree.node(id).body, Body::Directory(_)) {
            let directory = visitor.enter(&mut frame.directory, &path, name, id)?;
            frames.push(Frame {
                directory,
                id,
                names: Box::new(tree.names(id)),
                len: path.len(),
            });
        } else {
            visitor.file(&mut frame.directory, &path, name, id)?;
        }
    }
    Ok(())
}
