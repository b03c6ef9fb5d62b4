import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.security.SecureRandom;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.bouncycastle.crypto.AsymmetricCipherKeyPair;
import org.bouncycastle.mls.TreeKEM.LeafIndex;
import org.bouncycastle.mls.TreeKEM.LeafNode;
import org.bouncycastle.mls.TreeKEM.TreeKEMPublicKey;
import org.bouncycastle.mls.codec.AuthenticatedContent;
import org.bouncycastle.mls.codec.Commit;
import org.bouncycastle.mls.codec.ContentType;
import org.bouncycastle.mls.codec.Credential;
import org.bouncycastle.mls.codec.Extension;
import org.bouncycastle.mls.codec.GroupContext;
import org.bouncycastle.mls.codec.GroupInfo;
import org.bouncycastle.mls.codec.KeyPackage;
import org.bouncycastle.mls.codec.MLSMessage;
import org.bouncycastle.mls.codec.MLSOutputStream;
import org.bouncycastle.mls.codec.PreSharedKeyID;
import org.bouncycastle.mls.codec.Proposal;
import org.bouncycastle.mls.codec.ProposalOrRef;
import org.bouncycastle.mls.codec.ProposalOrRefType;
import org.bouncycastle.mls.codec.ProposalType;
import org.bouncycastle.mls.codec.Sender;
import org.bouncycastle.mls.codec.SenderType;
import org.bouncycastle.mls.codec.Welcome;
import org.bouncycastle.mls.codec.WireFormat;
import org.bouncycastle.mls.crypto.MlsCipherSuite;
import org.bouncycastle.mls.crypto.Secret;
import org.bouncycastle.mls.protocol.CachedProposal;
import org.bouncycastle.mls.protocol.Group;

/** A member, and the operations of the protocol on it. */
final class Member {
    static final List<Short> SUITES = List.of(
        (short) 1, (short) 2, (short) 3, (short) 4, (short) 5, (short) 6, (short) 7);

    private static final Map<Short, Integer> SCALAR_BYTES = Map.of((short) 2, 32, (short) 5, 66, (short) 7, 48);

    private record Package(KeyPackage keyPackage, AsymmetricCipherKeyPair init, AsymmetricCipherKeyPair leaf) {
    }

    private final SecureRandom random = new SecureRandom();
    private final MlsCipherSuite suite;
    private final AsymmetricCipherKeyPair signer;
    private final byte[] signerSecret;
    private final byte[] identity;
    private final List<Short> proposals;
    private final List<Package> packages = new ArrayList<>();
    private final Map<Secret, byte[]> psks = new HashMap<>();

    private Group group;
    private Group pending;
    private Set<ByteBuffer> ownRemovals = new HashSet<>();

    Member(JsonObject request) throws Exception {
        if (request.has("custom")) {
            throw new Driver.Unsupported("the library has no custom proposals");
        }
        short number = (short) Fields.number(request, "suite");
        if (!SUITES.contains(number)) {
            throw new Driver.Unsupported("no cipher suite " + number);
        }
        suite = MlsCipherSuite.getSuite(number);
        signer = suite.generateSignatureKeyPair();
        signerSecret = suite.serializeSignaturePrivateKey(signer.getPrivate());
        identity = Fields.bytes(request, "identity");
        proposals = Encoding.proposalTypes(request, "proposals");
    }

    Map<String, Object> keys() {
        return Map.of(
            "signature_key", Fields.base64(suite.serializeSignaturePublicKey(signer.getPublic())),
            "signature_private", Fields.base64(fixedLength(signerSecret)));
    }

    /** A scalar as the library has it, as long as its value asks or with a byte for the sign, at the length of its suite. */
    private byte[] fixedLength(byte[] secret) {
        Integer length = SCALAR_BYTES.get(suite.getSuiteID());
        if (length == null) {
            return secret;
        }
        byte[] fixed = new byte[length];
        int copied = Math.min(length, secret.length);
        System.arraycopy(secret, secret.length - copied, fixed, length - copied, copied);
        return fixed;
    }

    private LeafNode leafNode(AsymmetricCipherKeyPair keys) throws Exception {
        return new LeafNode(
            suite,
            suite.getHPKE().serializePublicKey(keys.getPublic()),
            suite.serializeSignaturePublicKey(signer.getPublic()),
            Credential.forBasic(identity),
            Encoding.capabilities(SUITES, proposals),
            Encoding.lifetime(),
            new ArrayList<>(),
            signerSecret);
    }

    private Package newPackage() throws Exception {
        AsymmetricCipherKeyPair init = suite.getHPKE().generatePrivateKey();
        AsymmetricCipherKeyPair leaf = suite.getHPKE().generatePrivateKey();
        byte[] initKey = suite.getHPKE().serializePublicKey(init.getPublic());
        KeyPackage made = new KeyPackage(suite, initKey, leafNode(leaf), new ArrayList<>(), signerSecret);
        return new Package(made, init, leaf);
    }

    Map<String, Object> keyPackage(JsonObject request) throws Exception {
        Package made = newPackage();
        packages.add(made);
        return Map.of("key_package", Encoding.base64(MLSMessage.keyPackage(made.keyPackage)));
    }

    private void enter(Group next) {
        group = next;
        pending = null;
        ownRemovals = new HashSet<>();
    }

    private Group group() {
        if (group == null) {
            throw new IllegalStateException("the member is in no group");
        }
        return group;
    }

    Map<String, Object> create(JsonObject request) throws Exception {
        AsymmetricCipherKeyPair keys = suite.getHPKE().generatePrivateKey();
        byte[] id = Fields.bytes(request, "group_id");
        enter(new Group(id, suite, keys, signerSecret, leafNode(keys), Encoding.context(request)));
        return Map.of();
    }

    Map<String, Object> join(JsonObject request) throws Exception {
        if (request.has("ratchet_tree")) {
            throw new Driver.Unsupported("the driver takes the tree of the Welcome");
        }
        Welcome welcome = Encoding.message(Fields.bytes(request, "welcome"), WireFormat.mls_welcome).welcome;
        for (Package made : packages) {
            if (welcome.find(made.keyPackage) >= 0) {
                byte[] init = suite.getHPKE().serializePrivateKey(made.init.getPrivate());
                enter(new Group(init, made.leaf, signerSecret, made.keyPackage, welcome, null, psks, new HashMap<>()));
                packages.remove(made);
                return Map.of();
            }
        }
        throw new IllegalArgumentException("the Welcome is for none of the member's key packages");
    }

    Map<String, Object> externalJoin(JsonObject request) throws Exception {
        if (!Fields.list(request, "self_removes").isEmpty() || !Fields.list(request, "custom").isEmpty()) {
            throw new Driver.Unsupported("externalJoin takes no self_removes and no custom proposals");
        }
        GroupInfo info = Encoding.message(Fields.bytes(request, "group_info"), WireFormat.mls_group_info).groupInfo;
        LeafIndex former = Fields.flag(request, "resync") ? formerLeaf(info) : null;
        Map<Secret, byte[]> wanted = new HashMap<>();
        for (byte[] id : Fields.byteStrings(request, "psks")) {
            wanted.put(new Secret(id), psks.get(new Secret(id)));
        }
        Group.GroupWithMessage made = Group.externalJoin(
            freshSecret(), signer, newPackage().keyPackage, info, null, new Group.MessageOptions(), former, wanted);
        enter(made.group);
        return Map.of("commit", Encoding.base64(made.message));
    }

    private LeafIndex formerLeaf(GroupInfo info) throws Exception {
        byte[] own = suite.serializeSignaturePublicKey(signer.getPublic());
        for (Extension extension : info.getExtensions()) {
            TreeKEMPublicKey tree = extension.getRatchetTree();
            for (LeafIndex leaf : tree == null ? List.<LeafIndex>of() : leaves(tree)) {
                if (Arrays.equals(tree.getLeafNode(leaf).getSignatureKey(), own)) {
                    return leaf;
                }
            }
        }
        throw new IllegalArgumentException("no former leaf of the member in the group");
    }

    private static List<LeafIndex> leaves(TreeKEMPublicKey tree) {
        List<LeafIndex> leaves = new ArrayList<>();
        for (int i = 0; i < tree.getSize().leafCount(); i++) {
            if (tree.hasLeaf(new LeafIndex(i))) {
                leaves.add(new LeafIndex(i));
            }
        }
        return leaves;
    }

    private Secret freshSecret() {
        byte[] secret = new byte[suite.getKDF().getHashLength()];
        random.nextBytes(secret);
        return new Secret(secret);
    }

    Map<String, Object> propose(JsonObject request) throws Exception {
        Group.MessageOptions options = new Group.MessageOptions();
        MLSMessage message;
        switch (Fields.text(request, "kind")) {
            case "add":
                message = group().add(keyPackageOf(request), options);
                break;
            case "update":
                AsymmetricCipherKeyPair keys = suite.getHPKE().generatePrivateKey();
                message = group().update(group().updateProposal(keys, new Group.LeafNodeOptions()), options);
                break;
            case "remove":
                message = group().remove(rosterIndex(Fields.number(request, "leaf")), options);
                break;
            case "psk":
                knowPsk(request);
                message = group().preSharedKey(Fields.bytes(request, "id"), options);
                break;
            case "group_context_extensions":
                message = group().groupContextExtensions(Encoding.context(request), options);
                break;
            default:
                throw new Driver.Unsupported("no proposal " + Fields.text(request, "kind"));
        }
        byte[] encoded = MLSOutputStream.encode(message);
        group().handle(encoded, null);
        return Map.of("message", Fields.base64(encoded));
    }

    /** The library counts the members to remove, where the protocol counts leaves. */
    private LeafIndex rosterIndex(int leaf) {
        int members = 0;
        for (LeafIndex other : leaves(group().getTree())) {
            if (other.value() == leaf) {
                return new LeafIndex(members);
            }
            members++;
        }
        throw new IllegalArgumentException("no member at leaf " + leaf);
    }

    private static KeyPackage keyPackageOf(JsonObject request) throws IOException {
        return Encoding.message(Fields.bytes(request, "key_package"), WireFormat.mls_key_package).keyPackage;
    }

    private void knowPsk(JsonObject request) {
        Secret id = new Secret(Fields.bytes(request, "id"));
        if (!psks.containsKey(id)) {
            throw new IllegalArgumentException("the member has no such PSK");
        }
        group().insertExternalPsk(id, psks.get(id));
    }

    private Proposal proposal(JsonObject request) throws Exception {
        switch (Fields.text(request, "kind")) {
            case "add":
                return Proposal.add(keyPackageOf(request));
            case "remove":
                return Proposal.remove(new LeafIndex(Fields.number(request, "leaf")));
            case "psk":
                knowPsk(request);
                return Proposal.preSharedKey(
                    PreSharedKeyID.external(Fields.bytes(request, "id"), freshSecret().value()));
            case "group_context_extensions":
                return Proposal.groupContextExtensions(Encoding.context(request));
            default:
                throw new Driver.Unsupported("no proposal " + Fields.text(request, "kind") + " by value");
        }
    }

    Map<String, Object> commit(JsonObject request) throws Exception {
        List<Proposal> byValue = new ArrayList<>();
        boolean adds = false;
        for (JsonElement element : Fields.list(request, "proposals")) {
            Proposal made = proposal(element.getAsJsonObject());
            byValue.add(made);
            adds |= made.getProposalType() == ProposalType.ADD;
        }
        Internals internals = new Internals(group());
        List<CachedProposal> chosen = Fields.flag(request, "by_reference") ? internals.committable() : List.of();
        adds |= Internals.haveAdd(chosen);
        Group.CommitOptions options =
            new Group.CommitOptions(byValue, true, Fields.flag(request, "force_path"), null);
        Group.GroupWithMessage made = internals.with(chosen, () -> group().commit(
            freshSecret(), options, new Group.MessageOptions(),
            new Group.CommitParameters(Group.NORMAL_COMMIT_PARAMS)));
        pending = made.group;
        Map<String, Object> reply = new HashMap<>(Map.of("commit", Encoding.base64(made.message)));
        if (adds) {
            MLSMessage welcome = new MLSMessage(WireFormat.mls_welcome);
            welcome.welcome = made.message.welcome;
            reply.put("welcome", Encoding.base64(welcome));
        }
        return reply;
    }

    Map<String, Object> confirm(JsonObject request) {
        if (pending == null) {
            throw new IllegalStateException("the member has no commit under way");
        }
        enter(pending);
        return Map.of();
    }

    Map<String, Object> discard(JsonObject request) {
        pending = null;
        return Map.of();
    }

    Map<String, Object> process(JsonObject request) throws Exception {
        byte[] encoded = Fields.bytes(request, "message");
        MLSMessage message = Encoding.message(encoded, WireFormat.mls_public_message);
        psks.forEach(group()::insertExternalPsk);
        if (message.getContentType() == ContentType.PROPOSAL) {
            processProposal(encoded, message);
            return Map.of("kind", "proposal");
        }
        return Map.of("kind", "commit", "removed", processCommit(encoded, message));
    }

    // The library refuses the removal of the member itself, once it has found the message authentic.
    private void processProposal(byte[] encoded, MLSMessage message) throws Exception {
        try {
            group().handle(encoded, null);
        } catch (Exception e) {
            AuthenticatedContent content = contentOf(message);
            if (!isRefusal(e) || content == null || !removesOwn(content.getContent().getProposal())) {
                throw e;
            }
            ownRemovals.add(reference(content));
        }
    }

    // Neither does it take the commit that removes the member, which it finds authentic first.
    private boolean processCommit(byte[] encoded, MLSMessage message) throws Exception {
        try {
            enter(new Internals(group()).keepingUpdate(() -> group().handle(encoded, null)));
            return false;
        } catch (Exception e) {
            AuthenticatedContent content = contentOf(message);
            if (content == null || !removesOwn(content.getContent().getCommit()) || !isAuthentic(content)) {
                throw e;
            }
            return true;
        }
    }

    private static boolean isRefusal(Exception e) {
        return "Invalid proposal".equals(e.getMessage());
    }

    private boolean isAuthentic(AuthenticatedContent commit) throws Exception {
        Sender sender = commit.getContent().getSender();
        LeafNode leaf = sender.getSenderType() == SenderType.MEMBER
            ? group().getTree().getLeafNode(sender.getSender())
            : commit.getContent().getCommit().getUpdatePath().getLeafNode();
        return commit.verify(suite, leaf.getSignatureKey(), MLSOutputStream.encode(groupContext()));
    }

    private AuthenticatedContent contentOf(MLSMessage message) throws Exception {
        return message.publicMessage.unprotect(suite, group().getKeySchedule().membershipKey, groupContext());
    }

    private ByteBuffer reference(AuthenticatedContent content) throws IOException {
        return ByteBuffer.wrap(suite.refHash(MLSOutputStream.encode(content), "MLS 1.0 Proposal Reference"));
    }

    private boolean removesOwn(Proposal proposal) {
        return proposal.getProposalType() == ProposalType.REMOVE
            && proposal.getRemove().removed.equals(group().getIndex());
    }

    private boolean removesOwn(Commit commit) {
        for (ProposalOrRef entry : commit.getProposals()) {
            boolean removes = entry.getType() == ProposalOrRefType.PROPOSAL
                ? removesOwn(entry.getProposal())
                : ownRemovals.contains(ByteBuffer.wrap(entry.getReference()));
            if (removes) {
                return true;
            }
        }
        return false;
    }

    private GroupContext groupContext() throws Exception {
        return group().getGroupInfo(false).groupInfo.getGroupContext();
    }

    Map<String, Object> psk(JsonObject request) {
        psks.put(new Secret(Fields.bytes(request, "id")), Fields.bytes(request, "secret"));
        return Map.of();
    }

    Map<String, Object> groupInfo(JsonObject request) throws Exception {
        return Map.of("group_info", Encoding.base64(group().getGroupInfo(true)));
    }

    Map<String, Object> state(JsonObject request) throws Exception {
        TreeKEMPublicKey tree = group().getTree();
        List<Map<String, Object>> members = new ArrayList<>();
        for (LeafIndex leaf : leaves(tree)) {
            LeafNode node = tree.getLeafNode(leaf);
            members.add(Map.of(
                "leaf", leaf.value(),
                "identity", Fields.base64(node.getCredential().getIdentity()),
                "signature_key", Fields.base64(node.getSignatureKey())));
        }
        return Map.of(
            "epoch", group().getEpoch(),
            "epoch_authenticator", Fields.base64(group().getEpochAuthenticator()),
            "tree_hash", Fields.base64(groupContext().getTreeHash()),
            "confirmed_transcript_hash", Fields.base64(groupContext().getConfirmedTranscriptHash()),
            "own_leaf", group().getIndex().value(),
            "members", members);
    }
}
