import java.lang.reflect.Field;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Callable;
import org.bouncycastle.mls.TreeKEM.LeafIndex;
import org.bouncycastle.mls.codec.Proposal;
import org.bouncycastle.mls.codec.ProposalType;
import org.bouncycastle.mls.protocol.CachedProposal;
import org.bouncycastle.mls.protocol.CachedUpdate;
import org.bouncycastle.mls.protocol.Group;

/**
 * What a group does not let others see: the proposals that it knows and its own Update. The library commits all that it
 * knows, refuses the list if it does not hold together, and has no method to choose; and it forgets its own Update with
 * every commit that it makes or tries to process. So the fields are set for that time.
 */
final class Internals {
    private static final String PENDING = "pendingProposals";
    private static final String OWN_UPDATE = "cachedUpdate";

    private final Group group;
    private final List<CachedProposal> all;

    @SuppressWarnings("unchecked")
    Internals(Group group) throws ReflectiveOperationException {
        this.group = group;
        this.all = (List<CachedProposal>) field(group, PENDING);
    }

    /** Those that the member may commit together (RFC 9420, Section 12.2), Removes before Updates. */
    List<CachedProposal> committable() throws ReflectiveOperationException {
        Set<LeafIndex> removed = new HashSet<>();
        for (CachedProposal known : all) {
            if (type(known) == ProposalType.REMOVE) {
                removed.add(removedLeaf(known));
            }
        }
        Map<Object, CachedProposal> chosen = new LinkedHashMap<>();
        for (CachedProposal known : all) {
            switch (type(known)) {
                case REMOVE:
                    chosen.put(removedLeaf(known), known);
                    break;
                case UPDATE:
                    LeafIndex sender = (LeafIndex) field(known, "sender");
                    if (!sender.equals(group.getIndex()) && !removed.contains(sender)) {
                        chosen.put(sender, known);
                    }
                    break;
                case GROUP_CONTEXT_EXTENSIONS:
                    chosen.put(ProposalType.GROUP_CONTEXT_EXTENSIONS, known);
                    break;
                default:
                    chosen.put(known, known);
            }
        }
        return new ArrayList<>(chosen.values());
    }

    static boolean haveAdd(List<CachedProposal> proposals) throws ReflectiveOperationException {
        for (CachedProposal known : proposals) {
            if (type(known) == ProposalType.ADD) {
                return true;
            }
        }
        return false;
    }

    /** Does something while the group knows these proposals alone. */
    <T> T with(List<CachedProposal> proposals, Callable<T> action) throws Exception {
        set(PENDING, new ArrayList<>(proposals));
        try {
            return keepingUpdate(action);
        } finally {
            set(PENDING, all);
        }
    }

    /** Does something that may reset the group's own Update, to a copy of it. */
    <T> T keepingUpdate(Callable<T> action) throws Exception {
        CachedUpdate own = (CachedUpdate) field(group, OWN_UPDATE);
        if (own != null) {
            byte[] key = ((byte[]) field(own, "updateSk")).clone();
            set(OWN_UPDATE, new CachedUpdate(key, (Proposal.Update) field(own, "update")));
        }
        try {
            return action.call();
        } finally {
            set(OWN_UPDATE, own);
        }
    }

    private static ProposalType type(CachedProposal known) throws ReflectiveOperationException {
        return ((Proposal) field(known, "proposal")).getProposalType();
    }

    private static LeafIndex removedLeaf(CachedProposal known) throws ReflectiveOperationException {
        return ((Proposal) field(known, "proposal")).getRemove().removed;
    }

    private static Object field(Object object, String name) throws ReflectiveOperationException {
        return accessible(object, name).get(object);
    }

    private void set(String name, Object value) throws ReflectiveOperationException {
        accessible(group, name).set(group, value);
    }

    private static Field accessible(Object object, String name) throws ReflectiveOperationException {
        Field field = object.getClass().getDeclaredField(name);
        field.setAccessible(true);
        return field;
    }
}
