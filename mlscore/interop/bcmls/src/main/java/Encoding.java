import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import org.bouncycastle.mls.TreeKEM.LifeTime;
import org.bouncycastle.mls.codec.Capabilities;
import org.bouncycastle.mls.codec.Extension;
import org.bouncycastle.mls.codec.ExtensionType;
import org.bouncycastle.mls.codec.MLSInputStream;
import org.bouncycastle.mls.codec.MLSMessage;
import org.bouncycastle.mls.codec.MLSOutputStream;
import org.bouncycastle.mls.codec.WireFormat;

/** Structures of RFC 9420 that the library makes only with contents of its own: they are encoded here and decoded there. */
final class Encoding {
    private static final short MLS10 = 1;
    private static final short CREDENTIAL_BASIC = 1;
    private static final long LIFETIME_SECONDS = 28 * 24 * 3600;
    private static final long CLOCK_SKEW_SECONDS = 3600;

    private Encoding() {
    }

    static Capabilities capabilities(List<Short> suites, List<Short> proposals) throws IOException {
        MLSOutputStream out = new MLSOutputStream();
        out.writeOpaque(shorts(List.of(MLS10)));
        out.writeOpaque(shorts(suites));
        out.writeOpaque(shorts(List.of()));
        out.writeOpaque(shorts(proposals));
        out.writeOpaque(shorts(List.of(CREDENTIAL_BASIC)));
        return (Capabilities) MLSInputStream.decode(out.toByteArray(), Capabilities.class);
    }

    static LifeTime lifetime() throws IOException {
        long now = Instant.now().getEpochSecond();
        ByteBuffer encoded = ByteBuffer.allocate(2 * Long.BYTES);
        encoded.putLong(now - CLOCK_SKEW_SECONDS).putLong(now + LIFETIME_SECONDS);
        return (LifeTime) MLSInputStream.decode(encoded.array(), LifeTime.class);
    }

    /** The GroupContext extensions of a request. */
    static List<Extension> context(JsonObject request) throws IOException {
        List<Extension> extensions = new ArrayList<>();
        List<byte[]> senders = Fields.byteStrings(request, "external_senders");
        if (!senders.isEmpty()) {
            ByteArrayOutputStream list = new ByteArrayOutputStream();
            for (byte[] sender : senders) {
                list.write(sender);
            }
            MLSOutputStream out = new MLSOutputStream();
            out.writeOpaque(list.toByteArray());
            extensions.add(new Extension(ExtensionType.EXTERNAL_SENDERS, out.toByteArray()));
        }
        List<Short> required = proposalTypes(request, "required_proposals");
        if (!required.isEmpty()) {
            MLSOutputStream out = new MLSOutputStream();
            out.writeOpaque(shorts(List.of()));
            out.writeOpaque(shorts(required));
            out.writeOpaque(shorts(List.of()));
            extensions.add(new Extension(ExtensionType.REQUIRED_CAPABILITIES, out.toByteArray()));
        }
        return extensions;
    }

    static List<Short> proposalTypes(JsonObject request, String field) {
        List<Short> types = new ArrayList<>();
        for (JsonElement type : Fields.list(request, field)) {
            types.add((short) type.getAsInt());
        }
        return types;
    }

    private static byte[] shorts(List<Short> values) {
        ByteBuffer encoded = ByteBuffer.allocate(Short.BYTES * values.size());
        values.forEach(encoded::putShort);
        return encoded.array();
    }

    static MLSMessage message(byte[] encoded, WireFormat wireFormat) throws IOException {
        MLSMessage message = (MLSMessage) MLSInputStream.decode(encoded, MLSMessage.class);
        if (message.wireFormat != wireFormat) {
            throw new IOException(message.wireFormat + " in place of " + wireFormat);
        }
        return message;
    }

    static String base64(MLSMessage message) throws IOException {
        return Fields.base64(MLSOutputStream.encode(message));
    }
}
