//! `MlsGroup` as a member.

use driver::{
    Bytes, Commit, Committed, ContextExtensions, ExternalJoin, Keys, NewMember, Processed, Result,
    State, Unsupported,
};
use openmls::prelude::tls_codec::{DeserializeBytes, Serialize};
use openmls::prelude::*;
use openmls::schedule::{ExternalPsk, PreSharedKeyId, Psk};
use openmls_rust_crypto::RustCrypto;
use openmls_traits::signatures::{Signer, SignerError};

use crate::storage::Storage;
use crate::{group_info, message, public_message, public_state, suites};

/// The crypto, the keys and the storage of one member.
#[derive(Default)]
struct Provider {
    crypto: RustCrypto,
    storage: Storage,
}

impl OpenMlsProvider for Provider {
    type CryptoProvider = RustCrypto;
    type RandProvider = RustCrypto;
    type StorageProvider = Storage;

    fn storage(&self) -> &Storage {
        &self.storage
    }

    fn crypto(&self) -> &RustCrypto {
        &self.crypto
    }

    fn rand(&self) -> &RustCrypto {
        &self.crypto
    }
}

struct Key {
    scheme: SignatureScheme,
    private: Vec<u8>,
    public: Vec<u8>,
}

impl Signer for Key {
    fn sign(&self, payload: &[u8]) -> std::result::Result<Vec<u8>, SignerError> {
        RustCrypto::default()
            .sign(self.scheme, payload, &self.private)
            .map_err(SignerError::CryptoError)
    }

    fn signature_scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

pub struct Client {
    provider: Provider,
    suite: Ciphersuite,
    key: Key,
    identity: CredentialWithKey,
    capabilities: Capabilities,
    group: Option<MlsGroup>,
}

impl Client {
    pub fn new(request: NewMember) -> Result<Self> {
        let suite = Ciphersuite::try_from(request.suite)?;
        if !suites().contains(&suite) {
            return Err(Box::new(Unsupported(
                "openmls_rust_crypto has no such cipher suite (its provider.rs, supports)",
            )));
        }
        let provider = Provider::default();
        let scheme = suite.signature_algorithm();
        let (private, public) = provider.crypto.signature_key_gen(scheme)?;
        let proposals = std::iter::once(ProposalType::SelfRemove).chain(
            request
                .proposals
                .into_iter()
                .chain(request.expansion.custom)
                .map(ProposalType::from),
        );
        Ok(Client {
            suite,
            identity: CredentialWithKey {
                credential: BasicCredential::new(request.identity.0).into(),
                signature_key: public.clone().into(),
            },
            key: Key {
                scheme,
                private,
                public,
            },
            capabilities: capabilities(proposals),
            provider,
            group: None,
        })
    }

    fn group(&self) -> Result<&MlsGroup> {
        Ok(self.group.as_ref().ok_or(NO_GROUP)?)
    }

    fn leaf_parameters(&self) -> LeafNodeParameters {
        LeafNodeParameters::builder()
            .with_capabilities(self.capabilities.clone())
            .build()
    }

    fn key_package_in(&self, encoded: &[u8]) -> Result<KeyPackage> {
        let MlsMessageBodyIn::KeyPackage(package) = message(encoded)? else {
            return Err("the message is no KeyPackage".into());
        };
        Ok(package.validate(&self.provider.crypto, ProtocolVersion::Mls10)?)
    }

    fn psk_id(&self, id: &[u8]) -> Result<PreSharedKeyId> {
        let psk = Psk::External(ExternalPsk::new(id.to_vec()));
        Ok(PreSharedKeyId::new(self.suite, &self.provider.crypto, psk)?)
    }

    fn by_value(&self, proposals: &[driver::Proposal]) -> Result<ByValue> {
        let mut all = ByValue::default();
        for proposal in proposals {
            match proposal {
                driver::Proposal::Add { key_package } => {
                    all.added.push(self.key_package_in(&key_package.0)?)
                }
                driver::Proposal::Psk { id } => {
                    let psk = PreSharedKeyProposal::new(self.psk_id(&id.0)?);
                    all.psks.push(Proposal::PreSharedKey(Box::new(psk)));
                }
                driver::Proposal::Remove { leaf } => all.removed.push(LeafNodeIndex::new(*leaf)),
                driver::Proposal::GroupContextExtensions(e) => {
                    all.extensions.push(context_extensions(e)?)
                }
                driver::Proposal::Update | driver::Proposal::SelfRemove => {
                    return Err("an Update or SelfRemove is by reference only".into())
                }
            }
        }
        Ok(all)
    }
}

/// Proposals to be committed by value, in the forms that the builder takes.
#[derive(Default)]
struct ByValue {
    added: Vec<KeyPackage>,
    psks: Vec<Proposal>,
    removed: Vec<LeafNodeIndex>,
    extensions: Vec<Extensions<GroupContext>>,
}

const NO_GROUP: &str = "the member is in no group";

fn capabilities(proposals: impl Iterator<Item = ProposalType>) -> Capabilities {
    let mut listed = Vec::new();
    for p in proposals {
        let of_rfc = (1..=7).contains(&u16::from(p)); // which are not listed
        if !of_rfc && !listed.contains(&p) {
            listed.push(p);
        }
    }
    Capabilities::new(
        None,
        Some(&suites()),
        None,
        Some(&listed),
        Some(&[CredentialType::Basic]),
    )
}

fn context_extensions(e: &ContextExtensions) -> Result<Extensions<GroupContext>> {
    let mut list = Vec::new();
    if let Some(types) = &e.required_proposals {
        let types: Vec<_> = types.iter().copied().map(ProposalType::from).collect();
        list.push(Extension::RequiredCapabilities(
            RequiredCapabilitiesExtension::new(&[], &types, &[]),
        ));
    }
    if !e.external_senders.is_empty() {
        let senders = e
            .external_senders
            .iter()
            .map(|s| ExternalSender::tls_deserialize_exact_bytes(&s.0));
        list.push(Extension::ExternalSenders(
            senders.collect::<std::result::Result<_, _>>()?,
        ));
    }
    Ok(Extensions::from_vec(list)?)
}

fn join_config() -> MlsGroupJoinConfig {
    MlsGroupJoinConfig::builder()
        .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
        .use_ratchet_tree_extension(true)
        .max_past_epochs(0)
        .build()
}

impl driver::Member for Client {
    fn keys(&self) -> Result<Keys> {
        Ok(Keys {
            signature_key: Bytes(self.key.public.clone()),
            signature_private: Bytes(self.key.private.clone()),
        })
    }

    fn key_package(&mut self) -> Result<Vec<u8>> {
        let bundle = KeyPackage::builder()
            .leaf_node_capabilities(self.capabilities.clone())
            .build(self.suite, &self.provider, &self.key, self.identity.clone())?;
        Ok(MlsMessageOut::from(bundle.into_key_package()).tls_serialize_detached()?)
    }

    fn create(&mut self, group_id: &[u8], extensions: &ContextExtensions) -> Result<()> {
        let group = MlsGroup::builder()
            .with_group_id(GroupId::from_slice(group_id))
            .ciphersuite(self.suite)
            .with_wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .max_past_epochs(0)
            .with_capabilities(self.capabilities.clone())
            .with_group_context_extensions(context_extensions(extensions)?)
            .build(&self.provider, &self.key, self.identity.clone())?;
        self.group = Some(group);
        Ok(())
    }

    fn join(&mut self, welcome: &[u8], ratchet_tree: Option<&[u8]>) -> Result<()> {
        let MlsMessageBodyIn::Welcome(welcome) = message(welcome)? else {
            return Err("the message is no Welcome".into());
        };
        let mut join = StagedWelcome::build_from_welcome(&self.provider, &join_config(), welcome)?
            .skip_lifetime_validation();
        if let Some(tree) = ratchet_tree {
            join = join.with_ratchet_tree(RatchetTreeIn::tls_deserialize_exact_bytes(tree)?);
        }
        self.group = Some(join.build()?.into_group(&self.provider)?);
        Ok(())
    }

    fn external_join(&mut self, join: ExternalJoin) -> Result<Vec<u8>> {
        if !join.custom.is_empty() {
            return Err(Box::new(Unsupported("the builder of external commits takes PSKs and SelfRemoves only (group/mls_group/commit_builder/external_commits.rs, impl CommitBuilder<Initial, MlsGroup>)")));
        }
        let self_removes = join
            .self_removes
            .iter()
            .map(|m| public_message(&m.0))
            .collect::<Result<Vec<_>>>()?;
        let psks = join
            .psks
            .iter()
            .map(|id| Ok(PreSharedKeyProposal::new(self.psk_id(&id.0)?)))
            .collect::<Result<Vec<_>>>()?;
        let (group, bundle) = MlsGroup::external_commit_builder()
            .with_proposals(self_removes)
            .with_config(join_config())
            .skip_lifetime_validation()
            .build_group(
                &self.provider,
                group_info(&join.group_info.0)?,
                self.identity.clone(),
            )?
            .add_psk_proposals(psks)
            .leaf_node_parameters(self.leaf_parameters())
            .load_psks(&self.provider.storage)?
            .build(
                &self.provider.crypto,
                &self.provider.crypto,
                &self.key,
                |_| true,
            )?
            .finalize(&self.provider)?;
        self.group = Some(group);
        Ok(bundle.into_commit().tls_serialize_detached()?)
    }

    fn propose(&mut self, proposal: &driver::Proposal) -> Result<Vec<u8>> {
        let propose = match proposal {
            driver::Proposal::Add { key_package } => {
                Propose::Add(self.key_package_in(&key_package.0)?)
            }
            driver::Proposal::Update => Propose::Update(LeafNodeParameters::default()),
            driver::Proposal::Remove { leaf } => Propose::Remove(*leaf),
            driver::Proposal::Psk { id } => Propose::PreSharedKey(self.psk_id(&id.0)?),
            driver::Proposal::GroupContextExtensions(e) => {
                Propose::GroupContextExtensions(context_extensions(e)?)
            }
            driver::Proposal::SelfRemove => {
                let group = self.group.as_mut().ok_or(NO_GROUP)?;
                return Ok(group
                    .leave_group_via_self_remove(&self.provider, &self.key)?
                    .tls_serialize_detached()?);
            }
        };
        let group = self.group.as_mut().ok_or(NO_GROUP)?;
        let (message, _) = group.propose(
            &self.provider,
            &self.key,
            propose,
            ProposalOrRefType::Reference,
        )?;
        Ok(message.tls_serialize_detached()?)
    }

    fn commit(&mut self, commit: &Commit) -> Result<Committed> {
        let proposals = self.by_value(&commit.proposals)?;
        let group = self.group.as_mut().ok_or(NO_GROUP)?;
        let waits = group
            .pending_proposals()
            .any(|p| matches!(p.proposal(), Proposal::PreSharedKey(_)));
        if waits && (!commit.by_reference || !proposals.psks.is_empty()) {
            return Err(Box::new(Unsupported(WRONG_PSKS)));
        }
        let own = group.own_leaf_index();
        let mut builder = group
            .commit_builder()
            .consume_proposal_store(commit.by_reference)
            .force_self_update(commit.force_path)
            .add_proposals(proposals.psks)
            .propose_adds(proposals.added)
            .propose_removals(proposals.removed);
        for extensions in proposals.extensions {
            builder = builder.propose_group_context_extensions(extensions)?;
        }
        let bundle = builder
            .load_psks(&self.provider.storage)?
            .build(
                &self.provider.crypto,
                &self.provider.crypto,
                &self.key,
                |p| !removes(p.proposal(), own),
            )?
            .stage_commit(&self.provider)?;
        let (commit, welcome, _) = bundle.into_messages();
        Ok(Committed {
            commit: Bytes(commit.tls_serialize_detached()?),
            welcome: welcome
                .map(|w| w.tls_serialize_detached())
                .transpose()?
                .map(Bytes),
        })
    }

    fn confirm(&mut self) -> Result<()> {
        let group = self.group.as_mut().ok_or(NO_GROUP)?;
        group.pending_commit().ok_or(NO_COMMIT)?;
        Ok(group.merge_pending_commit(&self.provider)?)
    }

    fn discard(&mut self) -> Result<()> {
        let group = self.group.as_mut().ok_or(NO_GROUP)?;
        group.pending_commit().ok_or(NO_COMMIT)?;
        Ok(group.clear_pending_commit(&self.provider.storage)?)
    }

    fn process(&mut self, message: &[u8]) -> Result<Processed> {
        let group = self.group.as_mut().ok_or(NO_GROUP)?;
        let message = public_message(message)?;
        match group
            .process_message(&self.provider, message)?
            .into_content()
        {
            ProcessedMessageContent::StagedCommitMessage(commit) => {
                let removed = commit.self_removed();
                group.merge_staged_commit(&self.provider, *commit)?;
                if removed {
                    self.group = None;
                }
                Ok(Processed::commit(removed))
            }
            ProcessedMessageContent::ProposalMessage(proposal)
            | ProcessedMessageContent::ExternalJoinProposalMessage(proposal) => {
                group.store_pending_proposal(&self.provider.storage, *proposal)?;
                Ok(Processed::proposal())
            }
            _ => Err("the message is no handshake".into()),
        }
    }

    fn psk(&mut self, id: &[u8], secret: &[u8]) -> Result<()> {
        Ok(self.psk_id(id)?.store(&self.provider, secret)?)
    }

    fn group_info(&mut self) -> Result<Vec<u8>> {
        let info = self
            .group()?
            .export_group_info(&self.provider.crypto, &self.key, true)?;
        Ok(info.tls_serialize_detached()?)
    }

    fn state(&self) -> Result<State> {
        let group = self.group()?;
        Ok(State {
            epoch_authenticator: Some(Bytes(group.epoch_authenticator().as_slice().to_vec())),
            own_leaf: Some(group.own_leaf_index().u32()),
            ..public_state(group.public_group())
        })
    }
}

/// The application has to leave out what would remove the committer.
fn removes(proposal: &Proposal, leaf: LeafNodeIndex) -> bool {
    matches!(proposal, Proposal::Remove(remove) if remove.removed() == leaf)
}

/// Nobody could process such a commit: its confirmation tag is wrong.
const WRONG_PSKS: &str = "OpenMLS enters the PSKs of its proposal store into the key schedule, \
    after those by value, whether and where the commit has them \
    (group/mls_group/commit_builder.rs, load_psks)";

const NO_COMMIT: &str = "the member has no pending commit";
