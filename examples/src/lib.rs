//! Small complete programs; see the folder.
