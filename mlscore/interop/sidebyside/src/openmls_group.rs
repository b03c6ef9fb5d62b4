//! OpenMLS: `PublicGroup` with RustCrypto and a storage that stores nothing.

use openmls::prelude::tls_codec::DeserializeBytes;
use openmls::prelude::*;
use openmls_rust_crypto::RustCrypto;
use openmls_traits::crypto::OpenMlsCrypto;
use openmls_traits::public_storage::PublicStorageProvider;
use openmls_traits::storage::{traits, CURRENT_VERSION};

use crate::recording::Signature;
use crate::{hex, Engine, Result, State};

struct OpenMls {
    crypto: RustCrypto,
    group: Option<PublicGroup>,
}

pub fn new() -> impl Engine {
    OpenMls {
        crypto: RustCrypto::default(),
        group: None,
    }
}

impl Engine for OpenMls {
    fn clear(&mut self) {
        self.group = None;
    }

    fn load(&mut self, group_info: &[u8]) -> Result<()> {
        let MlsMessageBodyIn::GroupInfo(info) =
            MlsMessageIn::tls_deserialize_exact_bytes(group_info)?.extract()
        else {
            return Err("not a GroupInfo".into());
        };
        let tree = info
            .extensions()
            .ratchet_tree()
            .ok_or("no ratchet_tree")?
            .ratchet_tree()
            .clone();
        let (group, _) =
            PublicGroup::from_external(&self.crypto, &NoStorage, tree, info, ProposalStore::new())?;
        self.group = Some(group);
        Ok(())
    }

    fn follow(&mut self, commit: &[u8]) -> Result<()> {
        let group = self.group.as_mut().ok_or("no group")?;
        let message =
            MlsMessageIn::tls_deserialize_exact_bytes(commit)?.try_into_protocol_message()?;
        let processed = group.process_message(&self.crypto, message)?;
        let ProcessedMessageContent::StagedCommitMessage(staged) = processed.into_content() else {
            return Err("not a commit".into());
        };
        group.merge_commit(&NoStorage, *staged)?;
        Ok(())
    }

    fn verify(&self, s: &Signature) -> Result<()> {
        Ok(self.crypto.verify_signature(
            SignatureScheme::ED25519,
            &s.message,
            &s.key,
            &s.signature,
        )?)
    }

    fn state(&self) -> Result<State> {
        let context = self.group.as_ref().ok_or("no group")?.group_context();
        Ok(State {
            epoch: context.epoch().as_u64(),
            tree_hash: hex(context.tree_hash()),
            confirmed_transcript_hash: hex(context.confirmed_transcript_hash()),
        })
    }
}

/// OpenMLS writes the whole tree to its storage after each commit. Its own
/// storages encode it as JSON; this one drops it, so that following is all
/// that is measured.
struct NoStorage;

type Stored<T> = std::result::Result<T, std::convert::Infallible>;

macro_rules! drops {
    ($($name:ident<$($kind:ident),*>($($arg:ty),*);)*) => {$(
        fn $name<Id: traits::GroupId<CURRENT_VERSION>, $($kind: traits::$kind<CURRENT_VERSION>),*>(&self, _: &Id, $(_: $arg),*) -> Stored<()> {
            Ok(())
        }
    )*};
}

macro_rules! has_none {
    ($($name:ident<$kind:ident>;)*) => {$(
        fn $name<Id: traits::GroupId<CURRENT_VERSION>, $kind: traits::$kind<CURRENT_VERSION>>(&self, _: &Id) -> Stored<Option<$kind>> {
            Ok(None)
        }
    )*};
}

impl PublicStorageProvider<CURRENT_VERSION> for NoStorage {
    type PublicError = std::convert::Infallible;

    drops! {
        write_tree<TreeSync>(&TreeSync);
        write_interim_transcript_hash<InterimTranscriptHash>(&InterimTranscriptHash);
        write_context<GroupContext>(&GroupContext);
        write_confirmation_tag<ConfirmationTag>(&ConfirmationTag);
        queue_proposal<ProposalRef, QueuedProposal>(&ProposalRef, &QueuedProposal);
        delete_tree<>();
        delete_confirmation_tag<>();
        delete_context<>();
        delete_interim_transcript_hash<>();
        remove_proposal<ProposalRef>(&ProposalRef);
        clear_proposal_queue<ProposalRef>();
    }

    has_none! {
        tree<TreeSync>;
        group_context<GroupContext>;
        interim_transcript_hash<InterimTranscriptHash>;
        confirmation_tag<ConfirmationTag>;
    }

    fn queued_proposals<
        Id: traits::GroupId<CURRENT_VERSION>,
        Ref: traits::ProposalRef<CURRENT_VERSION>,
        Queued: traits::QueuedProposal<CURRENT_VERSION>,
    >(
        &self,
        _: &Id,
    ) -> Stored<Vec<(Ref, Queued)>> {
        Ok(Vec::new())
    }
}
