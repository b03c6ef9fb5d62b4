//! Rules of a group: they expand LeafOperationProposals into Removes, and leave
//! proposals by reference out of a commit that is to have none.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use driver::Expansion;
use mls_rs::error::IntoAnyError;
use mls_rs::group::proposal::{
    AddProposal, CustomProposal, PreSharedKeyProposal, Proposal, ProposalType, ReInitProposal,
    RemoveProposal, SelfRemoveProposal, UpdateProposal,
};
use mls_rs::group::{ExportedTree, GroupContext, LeafIndex, Roster, Sender};
use mls_rs::mls_rules::{
    CommitDirection, CommitOptions, CommitSource, EncryptionOptions, ProposalBundle, ProposalInfo,
    ProposalSource,
};
use mls_rs::{CryptoProvider, ExtensionList, MlsRules};
use mls_rs_crypto_openssl::OpensslCryptoProvider;

use crate::intent::{Intent, REMOVE_ASSOCIATED_MEMBERS};

#[derive(Clone)]
pub struct Rules(Arc<Mutex<Shared>>);

/// What the rules know beside the arguments of their calls.
pub struct Shared {
    /// The type of a LeafOperationProposal.
    pub custom: Option<ProposalType>,
    /// Lists of identities that are one user each.
    pub associated: Vec<HashSet<Vec<u8>>>,
    /// The tree of the current epoch, for the leaves that a roster has not.
    pub tree: Option<ExportedTree<'static>>,
    /// Whether a commit to be sent has proposals by reference, and a path.
    pub by_reference: bool,
    pub force_path: bool,
}

#[derive(Debug)]
pub struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeafOperationProposal: {}", self.0)
    }
}

impl std::error::Error for Refused {}

impl IntoAnyError for Refused {
    fn into_dyn_error(self) -> std::result::Result<Box<dyn std::error::Error + Send + Sync>, Self> {
        Ok(self.into())
    }
}

impl Rules {
    pub fn new(expansion: Expansion) -> Self {
        let users = expansion.associated.into_iter();
        Rules(Arc::new(Mutex::new(Shared {
            custom: expansion.custom.map(ProposalType::new),
            associated: users
                .map(|user| user.into_iter().map(|id| id.0).collect())
                .collect(),
            tree: None,
            by_reference: true,
            force_path: false,
        })))
    }

    pub fn shared(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    /// Says what the next commit to be sent is to have.
    pub fn send(&self, by_reference: bool, force_path: bool) {
        let mut shared = self.shared();
        shared.by_reference = by_reference;
        shared.force_path = force_path;
    }

    /// Whether the rules need the tree to judge commits.
    pub fn expand(&self) -> bool {
        self.shared().custom.is_some()
    }
}

impl MlsRules for Rules {
    type Error = Refused;

    fn filter_proposals(
        &self,
        direction: CommitDirection,
        source: CommitSource,
        roster: &Roster,
        context: &GroupContext,
        mut proposals: ProposalBundle,
    ) -> Result<ProposalBundle, Refused> {
        let shared = self.shared();
        if direction == CommitDirection::Send && !shared.by_reference {
            drop_references(&mut proposals);
        }
        let committer = match source {
            CommitSource::ExistingMember(member) => Some(member.index),
            CommitSource::NewMember(_) => None,
        };
        let mut claimed = claimed(&proposals, committer);
        let mut removes = Vec::new();
        proposals.retain_custom(|p| {
            if Some(p.proposal.proposal_type()) != shared.custom {
                return Ok(true);
            }
            // As mls-rs does with other proposals, a committer leaves out by
            // reference what cannot be valid, and a receiver refuses it.
            let optional = direction == CommitDirection::Send && p.is_by_reference();
            match shared.targets(&p.proposal, roster, context) {
                Ok(leaves) if optional && leaves.iter().any(|l| claimed.contains(l)) => Ok(false),
                Ok(leaves) => {
                    claimed.extend(&leaves);
                    removes.push(leaves);
                    Ok(true)
                }
                Err(_) if optional => Ok(false),
                Err(why) => Err(Refused(why)),
            }
        })?;
        if direction == CommitDirection::Send {
            drop_updates(&mut proposals, &removes);
        }
        for leaves in removes {
            // The sender of the intent comes first; the Removes are from it.
            let sender = Sender::Member(leaves[0]);
            for leaf in leaves {
                let remove = RemoveProposal::removing(leaf).map_err(|e| Refused(e.to_string()))?;
                proposals.add(Proposal::Remove(remove), sender, ProposalSource::Local);
            }
        }
        Ok(proposals)
    }

    fn commit_options(
        &self,
        _: &Roster,
        _: &GroupContext,
        _: &ProposalBundle,
    ) -> Result<CommitOptions, Refused> {
        Ok(CommitOptions::new().with_path_required(self.shared().force_path))
    }

    fn encryption_options(
        &self,
        _: &Roster,
        _: &GroupContext,
    ) -> Result<EncryptionOptions, Refused> {
        Ok(EncryptionOptions::default()) // handshakes are PublicMessages
    }
}

impl Shared {
    /// The leaves that a LeafOperationProposal removes, its sender's first.
    fn targets(
        &self,
        proposal: &CustomProposal,
        roster: &Roster,
        context: &GroupContext,
    ) -> Result<Vec<u32>, String> {
        let intent = Intent::read(proposal.data())?;
        let sender = intent.tbs.sender_index;
        let crypto = OpensslCryptoProvider::new()
            .cipher_suite_provider(context.cipher_suite)
            .ok_or("no crypto for the cipher suite")?;
        let tree = self.tree.as_ref().ok_or("the tree is not known")?;
        let leaf = LeafIndex::try_from(sender)
            .and_then(|index| tree.get_leaf(index))
            .map_err(|e| e.to_string())?;
        intent.verify(&crypto, &context.group_id, leaf)?;

        let mut leaves = vec![sender];
        if intent.tbs.removal_mode == REMOVE_ASSOCIATED_MEMBERS {
            leaves.extend(self.associated_with(sender, roster));
        }
        Ok(leaves)
    }

    fn associated_with(&self, sender: u32, roster: &Roster) -> Vec<u32> {
        let members: Vec<_> = roster
            .members_iter()
            .filter_map(|m| Some((m.index, m.signing_identity.credential.as_basic()?.clone())))
            .collect();
        let Some((_, own)) = members.iter().find(|(leaf, _)| *leaf == sender) else {
            return Vec::new();
        };
        let users: Vec<_> = self
            .associated
            .iter()
            .filter(|user| user.contains(&own.identifier))
            .collect();
        members
            .iter()
            .filter(|(leaf, _)| *leaf != sender)
            .filter(|(_, other)| users.iter().any(|user| user.contains(&other.identifier)))
            .map(|(leaf, _)| *leaf)
            .collect()
    }
}

/// The leaves that no LeafOperationProposal can remove in the same commit.
fn claimed(proposals: &ProposalBundle, committer: Option<u32>) -> HashSet<u32> {
    let removes = proposals.remove_proposals().iter();
    let self_removes = proposals.self_remove_proposals().iter();
    removes
        .map(|p| p.proposal.to_remove())
        .chain(self_removes.filter_map(|p| member(p.sender())))
        .chain(committer)
        .collect()
}

fn member(sender: &Sender) -> Option<u32> {
    match sender {
        Sender::Member(leaf) => Some(*leaf),
        _ => None,
    }
}

/// A Remove is preferred to an Update (RFC 9420, Section 12.2).
fn drop_updates(proposals: &mut ProposalBundle, removes: &[Vec<u32>]) {
    let keep = |p: &ProposalInfo<UpdateProposal>| {
        let of = member(p.sender());
        Ok::<_, ()>(!removes.iter().flatten().any(|leaf| Some(*leaf) == of))
    };
    let _ = proposals.retain_by_type(keep);
}

fn drop_references(proposals: &mut ProposalBundle) {
    fn by_value<T>(p: &ProposalInfo<T>) -> Result<bool, ()> {
        Ok(p.is_by_value())
    }
    let _ = proposals.retain_by_type(by_value::<AddProposal>);
    let _ = proposals.retain_by_type(by_value::<UpdateProposal>);
    let _ = proposals.retain_by_type(by_value::<RemoveProposal>);
    let _ = proposals.retain_by_type(by_value::<SelfRemoveProposal>);
    let _ = proposals.retain_by_type(by_value::<PreSharedKeyProposal>);
    let _ = proposals.retain_by_type(by_value::<ReInitProposal>);
    let _ = proposals.retain_by_type(by_value::<ExtensionList>);
    let _ = proposals.retain_custom(by_value);
}
