//! What may reach raft-rs.
//!
//! raft-rs trusts its peers: a message of a wrong shape, or one that no peer of a healthy cluster can send, ends the
//! process there. Everything that comes from outside passes here first and is refused with a reason. What is refused
//! is what would be fatal or would break the log; what is only useless (an old term, an old answer) goes through, since
//! raft-rs ignores it.

use etched_proto::raftpb::{ConfState, Entry, Message, MessageType, SnapshotMetadata};

use crate::Role;
use crate::convert::ConfChange;

/// Terms and indexes from here on are nobody's: there is room above them, so that no sum overflows.
pub(crate) const NUMBER_MAX: u64 = 1 << 62;

/// Longest context of a message. Those of etcd and ours have at most 24 bytes.
pub(crate) const CONTEXT_BYTES_MAX: usize = 4 << 10;

/// Entries' bytes in one message: what etcd's transport reads at most.
pub(crate) const MESSAGE_BYTES_MAX: usize = 512 << 20;

/// Why a message is not for this member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Such a type is not known, or is not for the wire.
    #[error("a message of type {0} does not come from a peer")]
    Type(i32),
    /// It is for somebody else.
    #[error("the message is for member {0:x}")]
    NotForMe(u64),
    /// Nobody, or this member itself, is said to have sent it.
    #[error("the message is said to come from {0:x}")]
    Sender(u64),
    /// A response of a member that is none.
    #[error("{0:x} is no member")]
    UnknownPeer(u64),
    /// The term is missing, or too high, or there where none may be.
    #[error("a message of this type cannot have term {0}")]
    Term(u64),
    /// An index, or an index with what follows it, is beyond all that can be.
    #[error("index {0} cannot be")]
    Index(u64),
    /// The context, or the entries together, are longer than any can be.
    #[error("{0} bytes are too many")]
    TooLong(usize),
    /// Fields that have no place in such a message.
    #[error("the message has {0} that do not belong there")]
    Foreign(&'static str),
    /// A message that is about entries has none, or too many.
    #[error("the message has {0} entries")]
    EntryCount(usize),
    /// Entries do not follow each other, or are of a kind or term that they cannot have.
    #[error("entry {index} cannot be: {reason}")]
    Entry {
        /// The entry's index as it says.
        index: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// The leader believes that this member holds more than it does: its log was lost.
    #[error(
        "the leader knows index {commit} to be committed here, but the log ends at {last}: was it \
         replaced, or did it lose its tail?"
    )]
    CommitBeyondLog {
        /// What the leader says.
        commit: u64,
        /// What is there.
        last: u64,
    },
    /// A follower says that it holds more than this leader ever sent.
    #[error("an answer for index {index}, but the log ends at {last}")]
    AnswerBeyondLog {
        /// What the answer says.
        index: u64,
        /// What is there.
        last: u64,
    },
    /// A vote that this member has not asked for yet.
    #[error("a vote that nobody asked for")]
    Unasked,
    /// The snapshot says nothing about its place, or has members that cannot be.
    #[error("the snapshot has no usable metadata: {0}")]
    Snapshot(&'static str),
    /// An earlier snapshot is still being installed.
    #[error("another snapshot is being installed")]
    Busy,
    /// Only a leader does this.
    #[error("not the leader")]
    NotLeader,
    /// There is no leader to take a proposal, or it takes none now.
    #[error("the proposal was dropped")]
    Dropped,
}

/// What a message is judged by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    pub(crate) id: u64,
    pub(crate) term: u64,
    pub(crate) role: Role,
    pub(crate) last: u64,
    pub(crate) commit: u64,
    pub(crate) commit_term: u64,
    /// A snapshot is not installed yet.
    pub(crate) is_installing: bool,
    /// Something of this member is not on disk yet.
    pub(crate) is_unsynced: bool,
}

/// Whether `message` may reach raft-rs.
pub(crate) fn check(message: &Message, view: &View) -> Result<MessageType, Refused> {
    let number = message.r#type.unwrap_or_default();
    let kind = MessageType::try_from(number).map_err(|_| Refused::Type(number))?;
    check_envelope(message, kind, view)?;
    match kind {
        MessageType::MsgApp => check_append(message)?,
        MessageType::MsgProp => check_proposal(message)?,
        MessageType::MsgHeartbeat
            if message.term() >= view.term && message.commit() > view.last =>
        {
            return Err(Refused::CommitBeyondLog { commit: message.commit(), last: view.last });
        }
        MessageType::MsgAppResp => check_answer(message, view)?,
        MessageType::MsgSnap => check_snapshot(message, view)?,
        MessageType::MsgReadIndex => {
            one_context(message)?;
            require_leader(view)?;
        }
        MessageType::MsgReadIndexResp => one_context(message)?,
        // A forwarded one would be fatal in a follower: it has a term already.
        MessageType::MsgTransferLeader => require_leader(view)?,
        // Votes are asked for when all is on disk, so none can have come before.
        MessageType::MsgVoteResp if view.role == Role::Candidate && view.is_unsynced => {
            return Err(Refused::Unasked);
        }
        _ => {}
    }
    Ok(kind)
}

fn require_leader(view: &View) -> Result<(), Refused> {
    if view.role == Role::Leader { Ok(()) } else { Err(Refused::NotLeader) }
}

fn check_envelope(message: &Message, kind: MessageType, view: &View) -> Result<(), Refused> {
    use MessageType as Type;
    let has_entries = match kind {
        Type::MsgProp | Type::MsgApp | Type::MsgReadIndex | Type::MsgReadIndexResp => true,
        Type::MsgAppResp
        | Type::MsgVote
        | Type::MsgVoteResp
        | Type::MsgSnap
        | Type::MsgHeartbeat
        | Type::MsgHeartbeatResp
        | Type::MsgTransferLeader
        | Type::MsgTimeoutNow
        | Type::MsgPreVote
        | Type::MsgPreVoteResp => false,
        _ => return Err(Refused::Type(kind.into())),
    };
    if message.to() != view.id {
        return Err(Refused::NotForMe(message.to()));
    }
    if message.from() == 0 || message.from() == view.id {
        return Err(Refused::Sender(message.from()));
    }
    // raft-rs takes a message without a term for one of its own making.
    let has_term = !matches!(kind, Type::MsgProp | Type::MsgReadIndex);
    let term = message.term();
    if has_term != (term != 0) || term >= NUMBER_MAX || message.log_term() > term.max(view.term) {
        return Err(Refused::Term(term));
    }
    for index in [message.index(), message.commit(), message.reject_hint()] {
        if index >= NUMBER_MAX {
            return Err(Refused::Index(index));
        }
    }
    if !message.responses.is_empty() || message.vote() != 0 {
        return Err(Refused::Foreign("parts of a message to the own disk"));
    }
    if !has_entries && !message.entries.is_empty() {
        return Err(Refused::Foreign("entries"));
    }
    if kind != Type::MsgSnap
        && message.snapshot.as_ref().is_some_and(|snap| snap.metadata.is_some())
    {
        return Err(Refused::Foreign("snapshot metadata"));
    }
    let context = message.context.as_ref().map_or(0, bytes::Bytes::len);
    if context > CONTEXT_BYTES_MAX { Err(Refused::TooLong(context)) } else { Ok(()) }
}

/// Entries that follow `index` without a gap, with terms that never go back.
fn check_append(message: &Message) -> Result<(), Refused> {
    // To raft-rs term 0 fits every index that is not there.
    if (message.index() == 0) != (message.log_term() == 0) {
        return Err(Refused::Term(message.log_term()));
    }
    if message.log_term() > message.term() {
        return Err(Refused::Term(message.log_term()));
    }
    let (mut index, mut term, mut bytes) = (message.index(), message.log_term(), 0);
    for entry in &message.entries {
        let refused = |reason| Err(Refused::Entry { index: entry.index(), reason });
        if entry.index() != index + 1 {
            return refused("it does not follow the one before");
        }
        if entry.term() == 0 || entry.term() < term || entry.term() > message.term() {
            return refused("its term does not follow");
        }
        check_entry(entry)?;
        (index, term) = (entry.index(), entry.term());
        bytes += entry.data().len();
    }
    if bytes > MESSAGE_BYTES_MAX { Err(Refused::TooLong(bytes)) } else { Ok(()) }
}

fn check_proposal(message: &Message) -> Result<(), Refused> {
    if message.entries.is_empty() {
        return Err(Refused::EntryCount(0));
    }
    let bytes = message.entries.iter().map(|entry| entry.data().len()).sum();
    if bytes > MESSAGE_BYTES_MAX {
        return Err(Refused::TooLong(bytes));
    }
    message.entries.iter().try_for_each(check_entry)
}

fn check_entry(entry: &Entry) -> Result<(), Refused> {
    let refused = |reason| Err(Refused::Entry { index: entry.index(), reason });
    match entry.r#type.unwrap_or_default() {
        0 => Ok(()),
        1 if entry.data().is_empty() => refused("a change of nothing"),
        1 => {
            let data = entry.data.clone().unwrap_or_default();
            if ConfChange::decode(data).is_ok() { Ok(()) } else { refused("no change of a member") }
        }
        // No etcd proposes it, and each refuses to apply it.
        2 => refused("a change of several members"),
        _ => refused("its type is unknown"),
    }
}

/// Only in the own term, and by a leader, is an answer looked at.
fn check_answer(message: &Message, view: &View) -> Result<(), Refused> {
    let counts = view.role == Role::Leader && message.term() == view.term;
    if counts && !message.reject() && message.index() > view.last {
        return Err(Refused::AnswerBeyondLog { index: message.index(), last: view.last });
    }
    Ok(())
}

fn one_context(message: &Message) -> Result<(), Refused> {
    match message.entries.as_slice() {
        [entry]
            if entry.data().len() <= CONTEXT_BYTES_MAX && entry.r#type.unwrap_or_default() == 0 =>
        {
            Ok(())
        }
        [entry] => Err(Refused::TooLong(entry.data().len())),
        other => Err(Refused::EntryCount(other.len())),
    }
}

fn check_snapshot(message: &Message, view: &View) -> Result<(), Refused> {
    let metadata = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref());
    let Some(metadata) = metadata else { return Err(Refused::Snapshot("there is none")) };
    let SnapshotMetadata { conf_state, .. } = metadata;
    let (index, term) = (metadata.index(), metadata.term());
    if index == 0 || index >= NUMBER_MAX || term == 0 || term > message.term() {
        return Err(Refused::Snapshot("it has no place in the log"));
    }
    check_members(conf_state.as_ref().unwrap_or(&ConfState::default()))?;
    if view.is_installing {
        return Err(Refused::Busy);
    }
    if message.term() >= view.term && index == view.commit && term != view.commit_term {
        return Err(Refused::Snapshot("it contradicts what is committed"));
    }
    Ok(())
}

/// Members as etcd has them: voters and learners, nobody twice, no change of several half done.
fn check_members(state: &ConfState) -> Result<(), Refused> {
    let half_done =
        !state.voters_outgoing.is_empty() || !state.learners_next.is_empty() || state.auto_leave();
    let mut all: Vec<u64> = state.voters.iter().chain(&state.learners).copied().collect();
    all.sort_unstable();
    let twice = all.windows(2).any(|pair| pair[0] == pair[1]);
    if half_done || twice || all.first() == Some(&0) || state.voters.is_empty() {
        return Err(Refused::Snapshot("its members cannot be"));
    }
    Ok(())
}
