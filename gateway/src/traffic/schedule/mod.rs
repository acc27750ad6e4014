//! Which class may send next, and how fast: the first class strictly, the others by weighted shares
//! of bytes ([`share`], [`pick`]), all of it no faster than the link or the cloud allows ([`bucket`]). In come
//! snapshots and the time; out goes a pick. It holds no message.

pub mod bucket;
pub mod pick;
pub mod share;
