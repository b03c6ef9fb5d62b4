import com.google.gson.Gson;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/** A driver (../README.md) for members of Bouncy Castle's MLS: the line protocol. */
public final class Driver {
    /** The library has no such operation. */
    static final class Unsupported extends Exception {
        Unsupported(String reason) {
            super(reason);
        }
    }

    private interface Operation {
        Map<String, Object> on(Member member, JsonObject request) throws Exception;
    }

    private static final String VERSION = "1.84";

    private static final Map<String, Operation> OPERATIONS = new TreeMap<>(Map.ofEntries(
        Map.entry("key_package", Member::keyPackage),
        Map.entry("create", Member::create),
        Map.entry("join", Member::join),
        Map.entry("external_join", Member::externalJoin),
        Map.entry("propose", Member::propose),
        Map.entry("commit", Member::commit),
        Map.entry("confirm", Member::confirm),
        Map.entry("discard", Member::discard),
        Map.entry("process", Member::process),
        Map.entry("psk", Member::psk),
        Map.entry("group_info", Member::groupInfo),
        Map.entry("state", Member::state)));

    private final Map<String, Member> members = new HashMap<>();

    public static void main(String[] args) throws Exception {
        Driver driver = new Driver();
        Gson gson = new Gson();
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            System.out.println(gson.toJson(driver.answer(line)));
            System.out.flush();
        }
    }

    private Map<String, Object> answer(String line) {
        try {
            return operate(JsonParser.parseString(line).getAsJsonObject());
        } catch (Unsupported e) {
            return Map.of("error", e.getMessage(), "unsupported", true);
        } catch (Exception | AssertionError e) {
            return Map.of("error", e.getClass().getSimpleName() + ": " + e.getMessage());
        }
    }

    private Map<String, Object> operate(JsonObject request) throws Exception {
        String op = Fields.text(request, "op");
        String name = Fields.text(request, "member");
        switch (op) {
            case "hello":
                return hello();
            case "member":
                Member made = new Member(request);
                members.put(name, made);
                return made.keys();
            case "forget":
                members.remove(name);
                return Map.of();
            default:
        }
        Operation operation = OPERATIONS.get(op);
        if (operation == null) {
            throw new Unsupported("no operation " + op);
        }
        if (!members.containsKey(name)) {
            throw new IllegalArgumentException("no member " + name);
        }
        return operation.on(members.get(name), request);
    }

    private static Map<String, Object> hello() {
        List<String> operations = new java.util.ArrayList<>(List.of("hello", "member", "forget"));
        operations.addAll(OPERATIONS.keySet());
        return Map.of(
            "stack", "bcmls",
            "version", VERSION,
            "suites", Member.SUITES,
            "self_remove", 0,
            "operations", operations);
    }
}
