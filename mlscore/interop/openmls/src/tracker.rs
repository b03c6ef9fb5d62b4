//! `PublicGroup` as a tracker.

use driver::{Result, State, Track};
use openmls::prelude::*;
use openmls_rust_crypto::RustCrypto;

use crate::storage::Storage;
use crate::{group_info, public_message, public_state};

pub struct Tracker {
    crypto: RustCrypto,
    storage: Storage,
    group: PublicGroup,
}

impl Tracker {
    pub fn new(request: Track) -> Result<Self> {
        let (crypto, storage) = (RustCrypto::default(), Storage::default());
        let info = group_info(&request.group_info.0)?;
        let tree = info
            .extensions()
            .ratchet_tree()
            .ok_or("the GroupInfo has no ratchet_tree extension")?
            .ratchet_tree()
            .clone();
        let (group, _) =
            PublicGroup::from_external(&crypto, &storage, tree, info, ProposalStore::new())?;
        Ok(Tracker {
            crypto,
            storage,
            group,
        })
    }
}

impl driver::Tracker for Tracker {
    fn process(&mut self, message: &[u8]) -> Result<()> {
        let message = public_message(message)?;
        let processed = self.group.process_message(&self.crypto, message)?;
        match processed.into_content() {
            ProcessedMessageContent::StagedCommitMessage(commit) => {
                self.group.merge_commit(&self.storage, *commit)?
            }
            ProcessedMessageContent::ProposalMessage(proposal)
            | ProcessedMessageContent::ExternalJoinProposalMessage(proposal) => {
                self.group.add_proposal(&self.storage, *proposal)?
            }
            _ => return Err("the message is no handshake".into()),
        }
        Ok(())
    }

    fn state(&self) -> Result<State> {
        Ok(public_state(&self.group))
    }
}
