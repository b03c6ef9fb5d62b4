//! `Group` as a member.

use driver::{
    Bytes, Commit, Committed, ContextExtensions, ExternalJoin, Keys, NewMember, Processed,
    Proposal, Result, State, Unsupported,
};
use mls_rs::client_builder::{BaseConfig, WithCryptoProvider, WithIdentityProvider, WithMlsRules};
use mls_rs::crypto::SignatureSecretKey;
use mls_rs::extension::built_in::{ExternalSendersExt, RatchetTreeExt, RequiredCapabilitiesExt};
use mls_rs::group::proposal::{Proposal as MlsProposal, ProposalType};
use mls_rs::group::{CommitEffect, ExportedTree, ReceivedMessage};
use mls_rs::identity::basic::{BasicCredential, BasicIdentityProvider};
use mls_rs::identity::SigningIdentity;
use mls_rs::psk::{ExternalPskId, PreSharedKey};
use mls_rs::{CipherSuite, CipherSuiteProvider, CryptoProvider, ExtensionList, Group, MlsMessage};
use mls_rs_codec::MlsDecode;
use mls_rs_crypto_openssl::OpensslCryptoProvider;

use crate::public_state;
use crate::rules::Rules;

type Config = WithIdentityProvider<
    BasicIdentityProvider,
    WithMlsRules<Rules, WithCryptoProvider<OpensslCryptoProvider, BaseConfig>>,
>;

pub struct Client {
    client: mls_rs::Client<Config>,
    rules: Rules,
    private: SignatureSecretKey,
    group: Option<Group<Config>>,
}

const NO_GROUP: &str = "the member is in no group";
const NO_COMMIT: &str = "the member has no pending commit";

impl Client {
    pub fn new(request: NewMember) -> Result<Self> {
        let suite = CipherSuite::from(request.suite);
        let crypto = OpensslCryptoProvider::new();
        let Some(provider) = crypto.cipher_suite_provider(suite) else {
            return Err(Box::new(Unsupported(
                "mls-rs-crypto-openssl has no such cipher suite (its lib.rs, all_supported_cipher_suites)",
            )));
        };
        let (private, public) = provider.signature_key_generate()?;
        let credential = BasicCredential::new(request.identity.0).into_credential();
        let identity = SigningIdentity::new(credential, public);
        let proposals = proposal_types(&request.proposals, request.expansion.custom);
        let rules = Rules::new(request.expansion);
        let client = mls_rs::Client::builder()
            .crypto_provider(crypto)
            .mls_rules(rules.clone())
            .identity_provider(BasicIdentityProvider::new())
            .custom_proposal_types(proposals)
            .signing_identity(identity, private.clone(), suite)
            .build();
        Ok(Client {
            client,
            rules,
            private,
            group: None,
        })
    }

    fn group(&self) -> Result<&Group<Config>> {
        Ok(self.group.as_ref().ok_or(NO_GROUP)?)
    }

    fn group_mut(&mut self) -> Result<&mut Group<Config>> {
        Ok(self.group.as_mut().ok_or(NO_GROUP)?)
    }

    /// Shows the rules the tree of the epoch in which a commit is judged.
    fn show_tree(&self) -> Result<()> {
        if self.rules.expand() {
            self.rules.shared().tree = Some(self.group()?.export_tree().into_owned());
        }
        Ok(())
    }
}

/// What the capabilities of a leaf list: no type of RFC 9420, each other once.
fn proposal_types(given: &[u16], custom: Option<u16>) -> Vec<ProposalType> {
    let mut list = vec![ProposalType::SELF_REMOVE];
    for t in given.iter().copied().chain(custom).map(ProposalType::new) {
        if !ProposalType::DEFAULT.contains(&t) && !list.contains(&t) {
            list.push(t);
        }
    }
    list
}

/// The private key as the protocol has it: mls-rs puts the public key after a
/// seed, and leaves out leading zeros of a scalar.
fn raw_private(suite: CipherSuite, key: &[u8]) -> Vec<u8> {
    let size: usize = match suite {
        CipherSuite::P384_AES256 => 48,
        CipherSuite::P521_AES256 => 66,
        CipherSuite::CURVE448_AES256 | CipherSuite::CURVE448_CHACHA => 57,
        _ => 32,
    };
    let mut raw = vec![0; size.saturating_sub(key.len())];
    raw.extend(&key[..key.len().min(size)]);
    raw
}

fn context_extensions(e: &ContextExtensions) -> Result<ExtensionList> {
    let mut list = ExtensionList::new();
    if let Some(types) = &e.required_proposals {
        let types = types.iter().copied().map(ProposalType::new).collect();
        list.set_from(RequiredCapabilitiesExt::new(Vec::new(), types, Vec::new()))?;
    }
    if !e.external_senders.is_empty() {
        let senders = e.external_senders.iter().map(|s| read(&s.0));
        list.set_from(ExternalSendersExt::new(senders.collect::<Result<_>>()?))?;
    }
    Ok(list)
}

/// Decodes a value that fills its encoding.
fn read<T: MlsDecode>(mut encoded: &[u8]) -> Result<T> {
    let value = T::mls_decode(&mut encoded)?;
    if !encoded.is_empty() {
        return Err("trailing bytes".into());
    }
    Ok(value)
}

impl driver::Member for Client {
    fn keys(&self) -> Result<Keys> {
        let (identity, suite) = self.client.signing_identity()?;
        Ok(Keys {
            signature_key: Bytes(identity.signature_key.to_vec()),
            signature_private: Bytes(raw_private(suite, self.private.as_bytes())),
        })
    }

    fn key_package(&mut self) -> Result<Vec<u8>> {
        let none = ExtensionList::new;
        let message = self
            .client
            .generate_key_package_message(none(), none(), None)?;
        Ok(message.to_bytes()?)
    }

    fn create(&mut self, group_id: &[u8], extensions: &ContextExtensions) -> Result<()> {
        let group = self.client.create_group_with_id(
            group_id.to_vec(),
            context_extensions(extensions)?,
            ExtensionList::new(),
            None,
        )?;
        self.group = Some(group);
        Ok(())
    }

    fn join(&mut self, welcome: &[u8], ratchet_tree: Option<&[u8]>) -> Result<()> {
        let tree = ratchet_tree.map(ExportedTree::from_bytes).transpose()?;
        let welcome = MlsMessage::from_bytes(welcome)?;
        let (group, _) = self.client.join_group(tree, &welcome, None)?;
        self.group = Some(group);
        Ok(())
    }

    fn external_join(&mut self, join: ExternalJoin) -> Result<Vec<u8>> {
        let message = MlsMessage::from_bytes(&join.group_info.0)?;
        let info = message
            .clone()
            .into_group_info()
            .ok_or("the message is no GroupInfo")?;
        let tree = info.extensions().get_as::<RatchetTreeExt>()?;
        let tree = tree.ok_or("the GroupInfo has no ratchet_tree extension")?;
        let tree = tree.tree_data().clone();

        let mut builder = self.client.external_commit_builder()?;
        if join.resync {
            let (identity, _) = self.client.signing_identity()?;
            let old = tree
                .roster()
                .members_iter()
                .find(|m| m.signing_identity.signature_key == identity.signature_key)
                .ok_or("no leaf has the member's signature key")?;
            builder = builder.with_removal(old.index);
        }
        for m in &join.self_removes {
            builder = builder.with_received_custom_proposal(MlsMessage::from_bytes(&m.0)?);
        }
        for p in &join.custom {
            let MlsProposal::Custom(custom) = read(&p.0)? else {
                return Err("mls-rs reads the proposal as one of its own".into());
            };
            builder = builder.with_custom_proposal(custom);
        }
        for id in &join.psks {
            builder = builder.with_external_psk(ExternalPskId::new(id.0.clone()));
        }
        self.rules.shared().tree = Some(tree);
        self.rules.send(true, false);
        let (group, commit) = builder.build(message)?;
        self.group = Some(group);
        Ok(commit.to_bytes()?)
    }

    fn propose(&mut self, proposal: &Proposal) -> Result<Vec<u8>> {
        let group = self.group_mut()?;
        let no_data = Vec::new();
        let message = match proposal {
            Proposal::Add { key_package } => {
                group.propose_add(MlsMessage::from_bytes(&key_package.0)?, no_data)?
            }
            Proposal::Update => group.propose_update(no_data)?,
            Proposal::Remove { leaf } => group.propose_remove(*leaf, no_data)?,
            Proposal::SelfRemove => group.propose_self_remove(no_data)?,
            Proposal::Psk { id } => {
                group.propose_external_psk(ExternalPskId::new(id.0.clone()), no_data)?
            }
            Proposal::GroupContextExtensions(e) => {
                group.propose_group_context_extensions(context_extensions(e)?, no_data)?
            }
        };
        Ok(message.to_bytes()?)
    }

    fn commit(&mut self, commit: &Commit) -> Result<Committed> {
        self.show_tree()?;
        self.rules.send(commit.by_reference, commit.force_path);
        let mut builder = self.group_mut()?.commit_builder();
        for p in &commit.proposals {
            builder = match p {
                Proposal::Add { key_package } => {
                    builder.add_member(MlsMessage::from_bytes(&key_package.0)?)?
                }
                Proposal::Remove { leaf } => builder.remove_member(*leaf)?,
                Proposal::Psk { id } => {
                    builder.add_external_psk(ExternalPskId::new(id.0.clone()))?
                }
                Proposal::GroupContextExtensions(e) => {
                    builder.set_group_context_ext(context_extensions(e)?)?
                }
                Proposal::Update | Proposal::SelfRemove => {
                    return Err("an Update or SelfRemove is by reference only".into())
                }
            };
        }
        let output = builder.build()?;
        let welcome = output.welcome_messages().first();
        Ok(Committed {
            commit: Bytes(output.commit_message().to_bytes()?),
            welcome: welcome.map(|w| w.to_bytes()).transpose()?.map(Bytes),
        })
    }

    fn confirm(&mut self) -> Result<()> {
        let group = self.group_mut()?;
        if !group.has_pending_commit() {
            return Err(NO_COMMIT.into());
        }
        group.apply_pending_commit()?;
        Ok(())
    }

    fn discard(&mut self) -> Result<()> {
        let group = self.group_mut()?;
        if !group.has_pending_commit() {
            return Err(NO_COMMIT.into());
        }
        group.clear_pending_commit();
        Ok(())
    }

    fn process(&mut self, message: &[u8]) -> Result<Processed> {
        self.show_tree()?;
        let message = MlsMessage::from_bytes(message)?;
        match self.group_mut()?.process_incoming_message(message)? {
            ReceivedMessage::Proposal(_) => Ok(Processed::proposal()),
            ReceivedMessage::Commit(commit) => {
                let removed = matches!(commit.effect, CommitEffect::Removed { .. });
                if removed {
                    self.group = None;
                }
                Ok(Processed::commit(removed))
            }
            _ => Err("the message is no handshake".into()),
        }
    }

    fn psk(&mut self, id: &[u8], secret: &[u8]) -> Result<()> {
        let mut store = self.client.secret_store();
        store.insert(
            ExternalPskId::new(id.to_vec()),
            PreSharedKey::new(secret.to_vec()),
        );
        Ok(())
    }

    fn group_info(&mut self) -> Result<Vec<u8>> {
        let info = self.group()?.group_info_message_allowing_ext_commit(true)?;
        Ok(info.to_bytes()?)
    }

    fn state(&self) -> Result<State> {
        let group = self.group()?;
        Ok(State {
            epoch_authenticator: Some(Bytes(group.epoch_authenticator()?.to_vec())),
            own_leaf: Some(group.current_member_index()),
            ..public_state(group.context(), &group.roster())
        })
    }
}
