import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;

/** The fields of a request: an absent one is empty. */
final class Fields {
    private Fields() {
    }

    static String text(JsonObject request, String field) {
        return request.has(field) ? request.get(field).getAsString() : "";
    }

    static byte[] bytes(JsonObject request, String field) {
        return Base64.getDecoder().decode(text(request, field));
    }

    static int number(JsonObject request, String field) {
        return request.has(field) ? request.get(field).getAsInt() : 0;
    }

    static boolean flag(JsonObject request, String field) {
        return request.has(field) && request.get(field).getAsBoolean();
    }

    static List<JsonElement> list(JsonObject request, String field) {
        return request.has(field) ? request.getAsJsonArray(field).asList() : new JsonArray().asList();
    }

    static List<byte[]> byteStrings(JsonObject request, String field) {
        List<byte[]> decoded = new ArrayList<>();
        for (JsonElement element : list(request, field)) {
            decoded.add(Base64.getDecoder().decode(element.getAsString()));
        }
        return decoded;
    }

    static String base64(byte[] data) {
        return Base64.getEncoder().encodeToString(data);
    }
}
