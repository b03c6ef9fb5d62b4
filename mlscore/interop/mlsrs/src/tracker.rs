//! `ExternalGroup` as a tracker.

use driver::{Result, State, Track};
use mls_rs::external_client::builder::{
    ExternalBaseConfig, WithCryptoProvider, WithIdentityProvider, WithMlsRules,
};
use mls_rs::external_client::{ExternalClient, ExternalGroup, ExternalReceivedMessage};
use mls_rs::identity::basic::BasicIdentityProvider;
use mls_rs::MlsMessage;
use mls_rs_crypto_openssl::OpensslCryptoProvider;

use crate::public_state;
use crate::rules::Rules;

type Config = WithIdentityProvider<
    BasicIdentityProvider,
    WithMlsRules<Rules, WithCryptoProvider<OpensslCryptoProvider, ExternalBaseConfig>>,
>;

pub struct Tracker {
    rules: Rules,
    group: ExternalGroup<Config>,
}

impl Tracker {
    pub fn new(request: Track) -> Result<Self> {
        let rules = Rules::new(request.expansion);
        let client = ExternalClient::builder()
            .crypto_provider(OpensslCryptoProvider::new())
            .mls_rules(rules.clone())
            .identity_provider(BasicIdentityProvider::new())
            .build();
        let info = MlsMessage::from_bytes(&request.group_info.0)?;
        let group = client.observe_group(info, None, None)?;
        Ok(Tracker { rules, group })
    }
}

impl driver::Tracker for Tracker {
    fn process(&mut self, message: &[u8]) -> Result<()> {
        if self.rules.expand() {
            self.rules.shared().tree = Some(self.group.exported_tree().into_owned());
        }
        let message = MlsMessage::from_bytes(message)?;
        match self.group.process_incoming_message(message)? {
            ExternalReceivedMessage::Commit(_) | ExternalReceivedMessage::Proposal(_) => Ok(()),
            _ => Err("the message is no public handshake".into()),
        }
    }

    fn state(&self) -> Result<State> {
        Ok(public_state(
            self.group.group_context(),
            &self.group.roster(),
        ))
    }
}
