//! Storage for what OpenMLS reads back while it runs: private keys, key
//! packages and PSKs. A group lives in memory alone; OpenMLS would write all of
//! it after each message.

use std::cell::RefCell;
use std::collections::HashMap;

use openmls_traits::storage::{traits, StorageProvider, CURRENT_VERSION as V};
use serde::{de::DeserializeOwned, Serialize};
use serde_json::Error;

type Stored<T> = Result<T, Error>;

#[derive(Default)]
pub struct Storage(RefCell<HashMap<Vec<u8>, Vec<u8>>>);

impl Storage {
    fn put(&self, kind: &str, key: &impl Serialize, value: &impl Serialize) -> Stored<()> {
        let (key, value) = (
            serde_json::to_vec(&(kind, key))?,
            serde_json::to_vec(value)?,
        );
        self.0.borrow_mut().insert(key, value);
        Ok(())
    }

    fn get<T: DeserializeOwned>(&self, kind: &str, key: &impl Serialize) -> Stored<Option<T>> {
        let key = serde_json::to_vec(&(kind, key))?;
        let all = self.0.borrow();
        all.get(&key).map(|v| serde_json::from_slice(v)).transpose()
    }

    fn delete(&self, kind: &str, key: &impl Serialize) -> Stored<()> {
        self.0
            .borrow_mut()
            .remove(&serde_json::to_vec(&(kind, key))?);
        Ok(())
    }
}

macro_rules! drops {
    ($($name:ident<$($kind:ident),*>($($arg:ty),*);)*) => {$(
        fn $name<$($kind: traits::$kind<V>),*>(&self, $(_: $arg),*) -> Stored<()> {
            Ok(())
        }
    )*};
}

macro_rules! has_none {
    ($($name:ident<$($kind:ident),*> -> $none:ty;)*) => {$(
        fn $name<$($kind: traits::$kind<V>),*>(&self, _: &GroupId) -> Stored<$none> {
            Ok(Default::default())
        }
    )*};
}

impl StorageProvider<V> for Storage {
    type Error = Error;

    fn write_encryption_key_pair<Key: traits::EncryptionKey<V>, Pair: traits::HpkeKeyPair<V>>(
        &self,
        key: &Key,
        pair: &Pair,
    ) -> Stored<()> {
        self.put("key pair", key, pair)
    }

    fn encryption_key_pair<Pair: traits::HpkeKeyPair<V>, Key: traits::EncryptionKey<V>>(
        &self,
        key: &Key,
    ) -> Stored<Option<Pair>> {
        self.get("key pair", key)
    }

    fn delete_encryption_key_pair<Key: traits::EncryptionKey<V>>(&self, key: &Key) -> Stored<()> {
        self.delete("key pair", key)
    }

    fn write_encryption_epoch_key_pairs<
        GroupId: traits::GroupId<V>,
        Epoch: traits::EpochKey<V>,
        Pair: traits::HpkeKeyPair<V>,
    >(
        &self,
        group: &GroupId,
        epoch: &Epoch,
        leaf: u32,
        pairs: &[Pair],
    ) -> Stored<()> {
        self.put("epoch", &(group, epoch, leaf), &pairs)
    }

    fn encryption_epoch_key_pairs<
        GroupId: traits::GroupId<V>,
        Epoch: traits::EpochKey<V>,
        Pair: traits::HpkeKeyPair<V>,
    >(
        &self,
        group: &GroupId,
        epoch: &Epoch,
        leaf: u32,
    ) -> Stored<Vec<Pair>> {
        Ok(self
            .get("epoch", &(group, epoch, leaf))?
            .unwrap_or_default())
    }

    fn delete_encryption_epoch_key_pairs<
        GroupId: traits::GroupId<V>,
        Epoch: traits::EpochKey<V>,
    >(
        &self,
        group: &GroupId,
        epoch: &Epoch,
        leaf: u32,
    ) -> Stored<()> {
        self.delete("epoch", &(group, epoch, leaf))
    }

    fn write_key_package<Ref: traits::HashReference<V>, Package: traits::KeyPackage<V>>(
        &self,
        reference: &Ref,
        package: &Package,
    ) -> Stored<()> {
        self.put("key package", reference, package)
    }

    fn key_package<Ref: traits::HashReference<V>, Package: traits::KeyPackage<V>>(
        &self,
        reference: &Ref,
    ) -> Stored<Option<Package>> {
        self.get("key package", reference)
    }

    fn delete_key_package<Ref: traits::HashReference<V>>(&self, reference: &Ref) -> Stored<()> {
        self.delete("key package", reference)
    }

    fn write_psk<Id: traits::PskId<V>, Psk: traits::PskBundle<V>>(
        &self,
        id: &Id,
        psk: &Psk,
    ) -> Stored<()> {
        self.put("psk", id, psk)
    }

    fn psk<Psk: traits::PskBundle<V>, Id: traits::PskId<V>>(&self, id: &Id) -> Stored<Option<Psk>> {
        self.get("psk", id)
    }

    fn delete_psk<Id: traits::PskId<V>>(&self, id: &Id) -> Stored<()> {
        self.delete("psk", id)
    }

    fn signature_key_pair<Key: traits::SignaturePublicKey<V>, Pair: traits::SignatureKeyPair<V>>(
        &self,
        _: &Key,
    ) -> Stored<Option<Pair>> {
        Ok(None)
    }

    drops! {
        write_mls_join_config<GroupId, MlsGroupJoinConfig>(&GroupId, &MlsGroupJoinConfig);
        append_own_leaf_node<GroupId, LeafNode>(&GroupId, &LeafNode);
        queue_proposal<GroupId, ProposalRef, QueuedProposal>(&GroupId, &ProposalRef, &QueuedProposal);
        write_tree<GroupId, TreeSync>(&GroupId, &TreeSync);
        write_interim_transcript_hash<GroupId, InterimTranscriptHash>(&GroupId, &InterimTranscriptHash);
        write_context<GroupId, GroupContext>(&GroupId, &GroupContext);
        write_confirmation_tag<GroupId, ConfirmationTag>(&GroupId, &ConfirmationTag);
        write_group_state<GroupState, GroupId>(&GroupId, &GroupState);
        write_message_secrets<GroupId, MessageSecrets>(&GroupId, &MessageSecrets);
        write_resumption_psk_store<GroupId, ResumptionPskStore>(&GroupId, &ResumptionPskStore);
        write_own_leaf_index<GroupId, LeafNodeIndex>(&GroupId, &LeafNodeIndex);
        write_group_epoch_secrets<GroupId, GroupEpochSecrets>(&GroupId, &GroupEpochSecrets);
        write_signature_key_pair<SignaturePublicKey, SignatureKeyPair>(&SignaturePublicKey, &SignatureKeyPair);
        remove_proposal<GroupId, ProposalRef>(&GroupId, &ProposalRef);
        delete_own_leaf_nodes<GroupId>(&GroupId);
        delete_group_config<GroupId>(&GroupId);
        delete_tree<GroupId>(&GroupId);
        delete_confirmation_tag<GroupId>(&GroupId);
        delete_group_state<GroupId>(&GroupId);
        delete_context<GroupId>(&GroupId);
        delete_interim_transcript_hash<GroupId>(&GroupId);
        delete_message_secrets<GroupId>(&GroupId);
        delete_all_resumption_psk_secrets<GroupId>(&GroupId);
        delete_own_leaf_index<GroupId>(&GroupId);
        delete_group_epoch_secrets<GroupId>(&GroupId);
        clear_proposal_queue<GroupId, ProposalRef>(&GroupId);
        delete_signature_key_pair<SignaturePublicKey>(&SignaturePublicKey);
    }

    has_none! {
        mls_group_join_config<GroupId, MlsGroupJoinConfig> -> Option<MlsGroupJoinConfig>;
        own_leaf_nodes<GroupId, LeafNode> -> Vec<LeafNode>;
        queued_proposal_refs<GroupId, ProposalRef> -> Vec<ProposalRef>;
        queued_proposals<GroupId, ProposalRef, QueuedProposal> -> Vec<(ProposalRef, QueuedProposal)>;
        tree<GroupId, TreeSync> -> Option<TreeSync>;
        group_context<GroupId, GroupContext> -> Option<GroupContext>;
        interim_transcript_hash<GroupId, InterimTranscriptHash> -> Option<InterimTranscriptHash>;
        confirmation_tag<GroupId, ConfirmationTag> -> Option<ConfirmationTag>;
        group_state<GroupState, GroupId> -> Option<GroupState>;
        message_secrets<GroupId, MessageSecrets> -> Option<MessageSecrets>;
        resumption_psk_store<GroupId, ResumptionPskStore> -> Option<ResumptionPskStore>;
        own_leaf_index<GroupId, LeafNodeIndex> -> Option<LeafNodeIndex>;
        group_epoch_secrets<GroupId, GroupEpochSecrets> -> Option<GroupEpochSecrets>;
    }
}
