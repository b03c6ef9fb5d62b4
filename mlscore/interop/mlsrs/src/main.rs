//! A driver for mls-rs.

mod intent;
mod member;
mod rules;
mod tracker;

use driver::{Bytes, Hello, NewMember, Result, State, Track};
use mls_rs::group::proposal::ProposalType;
use mls_rs::group::{GroupContext, Roster};
use mls_rs::CryptoProvider;
use mls_rs_crypto_openssl::OpensslCryptoProvider;

struct MlsRs;

impl driver::Stack for MlsRs {
    type Member = member::Client;
    type Tracker = tracker::Tracker;

    fn hello(&self) -> Hello {
        let suites = OpensslCryptoProvider::new().supported_cipher_suites();
        Hello {
            stack: "mls-rs",
            version: "0.57.0",
            suites: suites.into_iter().map(u16::from).collect(),
            self_remove: ProposalType::SELF_REMOVE.raw_value(),
            operations: Hello::all_operations(),
        }
    }

    fn member(&self, request: NewMember) -> Result<Self::Member> {
        member::Client::new(request)
    }

    fn track(&self, request: Track) -> Result<Self::Tracker> {
        tracker::Tracker::new(request)
    }
}

/// What a group is for all to see.
fn public_state(context: &GroupContext, roster: &Roster) -> State {
    State {
        epoch: context.epoch,
        epoch_authenticator: None,
        tree_hash: Bytes(context.tree_hash.clone()),
        confirmed_transcript_hash: Bytes(context.confirmed_transcript_hash.to_vec()),
        own_leaf: None,
        members: roster.members_iter().map(|m| member_of(&m)).collect(),
    }
}

fn member_of(m: &mls_rs::group::Member) -> driver::MemberState {
    let credential = m.signing_identity.credential.as_basic();
    driver::MemberState {
        leaf: m.index,
        identity: Bytes(credential.map_or_else(Vec::new, |c| c.identifier.clone())),
        signature_key: Bytes(m.signing_identity.signature_key.to_vec()),
    }
}

fn main() -> std::io::Result<()> {
    driver::run(MlsRs)
}
