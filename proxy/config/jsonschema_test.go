package config

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	commoncfg "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	upstream "github.com/prometheus/prometheus/config"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	groupconfig "github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/transport"
)

var update = flag.Bool("update", false, "write oneprom.schema.json")

// The schema in the repository is that of the types, with the comments of
// config.example.yaml as descriptions.
func TestJSONSchema_UpToDate(t *testing.T) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	require.NoError(t, enc.Encode(generate(t)))
	if *update {
		require.NoError(t, os.WriteFile("oneprom.schema.json", b.Bytes(), 0o644))
	}
	file, err := os.ReadFile("oneprom.schema.json")
	require.NoError(t, err)
	require.Equal(t, b.String(), string(file), "oneprom.schema.json is not that of the types; run: go test ./proxy/config -run TestJSONSchema -update")
	if !*update {
		require.Equal(t, b.String(), JSONSchema, "what is embedded is another file") //nolint:testifylint // to the byte
	}
}

// What Parse takes, the schema takes, too; unknown keys and values neither does.
func TestJSONSchema_Validates(t *testing.T) {
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(JSONSchema))
	require.NoError(t, err)
	require.NoError(t, compiler.AddResource("schema.json", doc))
	schema, err := compiler.Compile("schema.json")
	require.NoError(t, err)
	validate := func(data []byte) error {
		var root yaml.Node
		require.NoError(t, yaml.Unmarshal(data, &root))
		return schema.Validate(jsonOf(resolved(root.Content[0])))
	}

	for _, path := range []string{"../../config.example.yaml", testdata + "/good.yaml"} {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, validate(data), path)
		cfg, err := Parse(data, path)
		require.NoError(t, err)
		require.NoError(t, validate([]byte(cfg.String())), "%s with its defaults", path)
	}
	docs, err := filepath.Glob("../../docs/*.md")
	require.NoError(t, err)
	shown := 0
	for _, path := range append(docs, "../../README.md") {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(data, -1) {
			if !bytes.Contains(block[1], []byte("server_groups:")) {
				continue // a part of a file
			}
			shown++
			require.NoError(t, validate(block[1]), "%s: %s", path, block[1])
			if _, err := Parse(block[1], path); err != nil {
				require.ErrorContains(t, err, "this binary has no such service discovery") // main_all_test.go reads it
			}
		}
	}
	require.Greater(t, shown, 2)
	require.NoError(t, validate([]byte("global:\nserver_groups: [{name: a, timeout: , static_configs: [{targets: [a]}]}]")))

	require.NoError(t, validate([]byte("server_groups: [{name: a, kubernetes_sd_configs: [{role: pod}]}]")))

	for _, path := range []string{"bad-keys.yaml", "bad-types.yaml", "bad-foreign.yaml", "bad-tracing.yaml", "bad-rules.yaml"} {
		data, err := os.ReadFile(filepath.Join(testdata, path))
		require.NoError(t, err)
		require.Error(t, validate(data), path)
	}
	require.NoError(t, validate([]byte("server_groups: [{name: a, some_sd_configs: [{port: 9090}]}]")), "a binary may have it")
	f := func(text, want string) {
		t.Helper()
		err := validate([]byte(text))
		require.Error(t, err)
		require.Contains(t, err.Error(), want)
	}
	f("global: {}", "server_groups")
	f("server_groups: []", "minItems")
	f("server_groups: [{}]", "name")
	f("server_groups: [{name: a, lables: {}}]", "lables")
	f("server_groups: [{name: a, kind: promxy}]", "kind")
	f("server_groups: [{name: a, timeout: 5}]", "timeout")
	f("server_groups: [{name: a, timeout: five minutes}]", "timeout")
	f("server_groups: [{name: a, tls_config: {min_version: TLS9}}]", "min_version")
	f("server_groups: [{name: a, static_configs: [{targets: a}]}]", "targets")
	f("server_groups: [{name: a, max_concurrency: many}]", "max_concurrency")
}

// jsonOf is what YAML means in JSON. Times are strings there.
func jsonOf(n *yaml.Node) any {
	switch n.Kind {
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			m[n.Content[i].Value] = jsonOf(n.Content[i+1])
		}
		return m
	case yaml.SequenceNode:
		list := []any{}
		for _, item := range n.Content {
			list = append(list, jsonOf(item))
		}
		return list
	}
	if n.ShortTag() == "!!timestamp" || n.ShortTag() == "!!binary" {
		return n.Value
	}
	var v any
	if n.Decode(&v) != nil {
		return n.Value
	}
	return v
}

// object is a JSON object. Its keys are sorted when it is written.
type object = map[string]any

// A generator makes the JSON schema of the types that a file is read into.
type generator struct {
	texts map[place]string // descriptions
	defs  object
	names map[string]reflect.Type // of defs
}

// A place is a key of a mapping.
type place struct {
	form reflect.Type
	key  string
}

func generate(t *testing.T) object {
	data, err := os.ReadFile("../../config.example.yaml")
	require.NoError(t, err)
	var root yaml.Node
	require.NoError(t, yaml.Unmarshal(data, &root))

	g := &generator{texts: map[place]string{}, defs: object{}, names: map[string]reflect.Type{}}
	config := reflect.TypeFor[Config]()
	g.describe(root.Content[0], config)
	schema := g.mapping(config)
	schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	schema["title"] = "The configuration of oneprom"
	schema["required"] = []string{"server_groups"}
	schema["type"] = "object" // an empty file is none
	schema["$defs"] = g.defs
	return schema
}

// describe takes the comments of an example as descriptions of its keys.
func (g *generator) describe(n *yaml.Node, t reflect.Type) {
	t = shape(t)
	switch n.Kind {
	case yaml.SequenceNode:
		for _, item := range n.Content {
			if t.Kind() == reflect.Slice {
				g.describe(item, t.Elem())
			}
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			below := valueType(t, key.Value)
			if below == nil {
				continue
			}
			text := prose(key.HeadComment)
			if line := prose(key.LineComment + value.LineComment); line != "" {
				text = strings.TrimSpace(text + " (" + line + ")")
			}
			at := place{t, key.Value}
			if n.Kind == yaml.MappingNode && t.Kind() == reflect.Struct && g.texts[at] == "" && text != "" {
				g.texts[at] = strings.TrimSuffix(strings.TrimPrefix(text, "("), ")")
			}
			g.describe(value, below)
		}
	}
}

// prose is the text of a comment: its last paragraph, as what stands above may be about
// the file.
func prose(comment string) string {
	paragraphs := strings.Split(comment, "\n\n")
	var words []string
	for line := range strings.Lines(paragraphs[len(paragraphs)-1]) {
		if line = strings.TrimLeft(line, "# "); !commentedOut.MatchString(line) {
			words = append(words, strings.Fields(line)...)
		}
	}
	return strings.Join(words, " ")
}

// commentedOut finds keys with a list or mapping.
var commentedOut = regexp.MustCompile(`^[a-z_]+: [\[{]`)

// value is the schema of a value of type t.
func (g *generator) value(t reflect.Type) object {
	form := shape(t)
	if s, ok := scalarSchemas[form]; ok {
		return s()
	}
	switch kindOf(form) {
	case yaml.SequenceNode:
		return object{"type": []string{"array", "null"}, "items": g.value(form.Elem())}
	case yaml.MappingNode:
		if form.Kind() == reflect.Map {
			return object{"type": []string{"object", "null"}, "additionalProperties": g.value(form.Elem())}
		}
		return g.named(indirect(t), form)
	}
	switch kind := form.Kind(); {
	case kind == reflect.Interface:
		return object{}
	case kind == reflect.Bool:
		return object{"type": []string{"boolean", "null"}}
	case kind >= reflect.Int && kind <= reflect.Uint64:
		return object{"type": []string{"integer", "null"}}
	case kind == reflect.Float32 || kind == reflect.Float64:
		return object{"type": []string{"number", "null"}}
	}
	return text()
}

// published are the names of schemas that are not those of the Go types: these have moved,
// and the schema is the same for whoever refers to a part of it.
var published = map[reflect.Type]string{
	reflect.TypeFor[groupconfig.Group]():     "servergroup.Config",
	reflect.TypeFor[groupconfig.TimeRange](): "servergroup.TimeRange",
}

// named is a reference to the schema of a type that may be in several places.
func (g *generator) named(t, form reflect.Type) object {
	name := cmp.Or(published[t], path.Base(t.PkgPath())+"."+t.Name())
	if t.Name() == "" || g.names[name] != nil && g.names[name] != t {
		return g.mapping(form)
	}
	if g.names[name] == nil {
		g.names[name] = t
		g.defs[name] = g.mapping(form)
	}
	return object{"$ref": "#/$defs/" + name}
}

func (g *generator) mapping(form reflect.Type) object {
	properties := object{}
	for _, f := range fieldsOf(form) {
		schema := g.value(f.typ)
		if form == reflect.TypeFor[Config]() && f.key == "server_groups" {
			schema["minItems"] = 1
		}
		if text := g.texts[place{form, f.key}]; text != "" {
			schema["description"] = text
		}
		properties[f.key] = schema
	}
	schema := object{"type": []string{"object", "null"}, "properties": properties, "additionalProperties": false}
	if properties["static_configs"] != nil {
		// Those service discoveries that only the binary has: their keys are Prometheus' own.
		schema["patternProperties"] = object{"^[a-z0-9]+" + discoverySuffix + "$": object{"type": []string{"array", "null"}, "items": object{"type": "object"}}}
	}
	if form == groupType() || form == reflect.TypeFor[QueryRule]() {
		schema["type"] = "object"
		schema["required"] = []string{"name"}
	}
	return schema
}

// text is a string. YAML's numbers, and true and false, are read as strings where there must
// be one.
func text() object { return object{"type": []string{"string", "number", "boolean", "null"}} }

func oneOf[T ~string](values ...T) func() object {
	return func() object {
		enum := []any{nil}
		for _, v := range values {
			enum = append(enum, string(v))
		}
		return object{"enum": enum}
	}
}

// scalarSchemas are those of scalars that are more than a Go kind.
var scalarSchemas = map[reflect.Type]func() object{
	reflect.TypeFor[model.Duration](): func() object {
		return object{
			"type":    []string{"string", "integer", "null"},
			"pattern": `^(([0-9]+y)?([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?|0)$`,
			"maximum": 0, "minimum": 0, // a number without a unit
		}
	},
	reflect.TypeFor[groupconfig.Time]():            func() object { return object{"type": []string{"string", "number", "null"}} },
	reflect.TypeFor[commoncfg.TLSVersion]():        oneOf("TLS10", "TLS11", "TLS12", "TLS13"),
	reflect.TypeFor[upstream.TracingClientType]():  oneOf("grpc", "http"),
	reflect.TypeFor[transport.Kind]():              oneOf(transport.Kinds...),
	reflect.TypeFor[groupconfig.PartialResponse](): oneOf(groupconfig.PartialWarn, groupconfig.PartialError),
	reflect.TypeFor[groupconfig.Pushdown]():        oneOf(groupconfig.PushdownProvable, groupconfig.PushdownOff),
	reflect.TypeFor[groupconfig.RemoteRead]():      oneOf(groupconfig.RemoteReadAuto, groupconfig.RemoteReadAlways, groupconfig.RemoteReadNever),
	reflect.TypeFor[groupconfig.Replicas]():        oneOf(groupconfig.WholeFirst, groupconfig.MergeAll),
	reflect.TypeFor[ReadyWhen]():                   oneOf(ReadyNone, ReadyAny, ReadyAll),
	reflect.TypeFor[QueryAction]():                 oneOf(ActionRefuse),
}
