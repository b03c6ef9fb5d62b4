package config

import (
	"go/ast"
	"go/parser"
	"go/token"
	"math"
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Every field says what it is, and, unless it only groups others, its default
// or that it may or must be set.
func TestFieldsAreDocumented(t *testing.T) {
	stated := regexp.MustCompile(`Default:|Optional\.|Required`)
	fields := 0
	for _, name := range []string{"config.go", "tenant.go", "problem.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		groups := map[string]bool{}
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok {
				_, groups[spec.Name.Name] = spec.Type.(*ast.StructType)
			}
			return true
		})
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			structure, ok := spec.Type.(*ast.StructType)
			if !ok {
				return true
			}
			for _, field := range structure.Fields.List {
				fieldName := field.Names[0].Name
				if !ast.IsExported(fieldName) {
					continue
				}
				fields++
				ident, _ := field.Type.(*ast.Ident)
				grouping := ident != nil && (groups[ident.Name] || ident.Obj == nil && ast.IsExported(ident.Name) && !isScalar(ident.Name))
				doc := strings.Join(strings.Fields(field.Doc.Text()), " ")
				if !strings.HasPrefix(doc, fieldName+" ") {
					t.Errorf("%s.%s: no comment that begins with its name", spec.Name, fieldName)
				}
				if field.Tag != nil && !grouping && !stated.MatchString(doc) {
					t.Errorf("%s.%s: the comment states neither a default nor that it is optional or required", spec.Name, fieldName)
				}
			}
			return true
		})
	}
	if fields < 75 {
		t.Errorf("%d fields found", fields)
	}
}

func isScalar(name string) bool { return name == "Duration" || name == "ByteSize" }

func TestDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0s": 0, "0": 0, "30s": 30 * time.Second, "1m30s": 90 * time.Second, "2160h": 90 * 24 * time.Hour, "90d": 90 * 24 * time.Hour,
		"1d12h": 36 * time.Hour, "0d5s": 5 * time.Second, "-5s": -5 * time.Second, "500ms": 500 * time.Millisecond, "106751d": 106751 * 24 * time.Hour,
	} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || d.Std() != want {
			t.Errorf("%s: %v, %v", text, d.Std(), err)
		}
	}
	for _, text := range []string{"", "5", "d", "1.5d", "-1d", "+1d", "1d-1h", "1d2d", "1 d", "106752d", "106751d24h", "99999999999d", "1w", "1h1d"} {
		d := Duration(7)
		if err := d.UnmarshalText([]byte(text)); err == nil || d != 7 {
			t.Errorf("%q: %v, %v", text, d, err)
		}
	}
}

func TestByteSize(t *testing.T) {
	for text, want := range map[string]ByteSize{
		"0": 0, "65536": 65536, "1B": 1, "16KiB": 16 << 10, "16 KiB": 16 << 10, "1MiB": 1 << 20, "3GiB": 3 << 30, "2TiB": 2 << 40,
		"9223372036854775807": math.MaxInt64,
	} {
		var s ByteSize
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%s: %d, %v", text, s, err)
		}
	}
	for _, text := range []string{"", "KiB", "-1", "+1", "1.5KiB", "1KB", "1K", "1kib", "1  KiB", " 1", "0x10", "9223372036854775808", "8388608TiB"} {
		s := ByteSize(7)
		if err := s.UnmarshalText([]byte(text)); err == nil || s != 7 {
			t.Errorf("%q: %d, %v", text, s, err)
		}
	}
}

// What a value prints, it is read from.
func TestScalarsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		unit := rapid.SampledFrom([]Duration{1, Duration(time.Second), Duration(time.Minute), Duration(time.Hour), day}).Draw(t, "unit")
		d := Duration(rapid.Int64Range(0, math.MaxInt64/int64(unit)).Draw(t, "count")) * unit
		text, _ := d.MarshalText()
		var back Duration
		if err := back.UnmarshalText(text); err != nil || back != d {
			t.Fatalf("%d: %s: %d, %v", d, text, back, err)
		}
		s := ByteSize(rapid.Int64Min(0).Draw(t, "size")) >> rapid.UintRange(0, 62).Draw(t, "right")
		s <<= rapid.UintRange(0, 20).Draw(t, "left")
		if s < 0 {
			return
		}
		text, _ = s.MarshalText()
		var size ByteSize
		if err := size.UnmarshalText(text); err != nil || size != s {
			t.Fatalf("%d: %s: %d, %v", s, text, size, err)
		}
	})
}

// Validate needs no file: a caller may fill the struct itself.
func TestValidate(t *testing.T) {
	cfg := Default()
	cfg.StateDir = t.TempDir()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	cfg.Prefix, cfg.Tenants[0].Mode2 = "", ""
	const want = "prefix: \"\" is not 1 to 32 of A-Z a-z 0-9 _ -\n" +
		"tenants[0].mode2: \"\" is not one of allow, hold, sender_only"
	if err := cfg.Validate(); err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
}
