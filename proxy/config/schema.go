package config

import (
	"reflect"
	"slices"
	"strings"
	"sync"

	commoncfg "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	upstream "github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"

	groupconfig "github.com/oneprom/oneprom/servergroup/config"
)

// What may stand at a place of the file is read off the Go types, by reflection:
// custom unmarshalers hide it from the YAML library's own strictness, and errors
// need the keys that are valid.

// A field is a key of a mapping, with the type of its value.
type field struct {
	key string
	typ reflect.Type
}

// legacyUnmarshaler is what upstream's types implement.
type legacyUnmarshaler interface {
	UnmarshalYAML(unmarshal func(any) error) error
}

func unmarshals(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[legacyUnmarshaler]())
}

// standIns have the shape that the unmarshalers of other types read.
var standIns = map[reflect.Type]reflect.Type{
	reflect.TypeFor[labels.Labels](): reflect.TypeFor[map[string]string](),
	reflect.TypeFor[targetgroup.Group](): reflect.TypeFor[struct {
		Targets []string          `yaml:"targets"`
		Labels  map[string]string `yaml:"labels"`
	}](),
	reflect.TypeFor[commoncfg.Headers](): reflect.TypeFor[map[string]commoncfg.Header](),
}

// discovering are the shapes of types with the keys of the registered service
// discoveries. They are not asked for before all are, by the init functions of their
// packages.
var discovering = sync.OnceValue(func() map[reflect.Type]reflect.Type {
	return map[reflect.Type]reflect.Type{
		reflect.TypeFor[groupconfig.Group]():           withDiscovery(&groupconfig.Group{}),
		reflect.TypeFor[upstream.AlertmanagerConfig](): withDiscovery(&upstream.AlertmanagerConfig{}),
	}
})

// groupType is a group with the keys of the registered service discoveries.
func groupType() reflect.Type { return discovering()[reflect.TypeFor[groupconfig.Group]()] }

// withDiscovery is the type of what config points to, with the keys of the registered
// service discoveries.
func withDiscovery(config any) reflect.Type {
	whole, err := discovery.MarshalYAMLWithInlineConfigs(config)
	if err != nil {
		panic(err) // about the type, so no file could be read
	}
	return reflect.TypeOf(whole).Elem()
}

// shape is the type that a place of the file has the form of.
func shape(t reflect.Type) reflect.Type {
	t = indirect(t)
	if in, ok := standIns[t]; ok {
		return in
	}
	if in, ok := discovering()[t]; ok {
		return in
	}
	return t
}

func indirect(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

// fieldsOf returns the keys of a mapping that t describes; none if t is not a
// struct that is written as a mapping.
func fieldsOf(t reflect.Type) []field {
	if t = shape(t); t.Kind() != reflect.Struct {
		return nil
	}
	var fields []field
	for f := range t.Fields() {
		key, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case !f.IsExported() || key == "-":
		case strings.Contains(options, "inline"):
			fields = append(fields, fieldsOf(f.Type)...)
		case key == "" || strings.HasSuffix(key, "_ref"): // there is no secret manager
		default:
			fields = append(fields, field{key, f.Type})
		}
	}
	return fields
}

func keysOf(t reflect.Type) []string {
	var keys []string
	for _, f := range fieldsOf(t) {
		keys = append(keys, f.key)
	}
	return keys
}

// Knows reports whether a file may have the key that path leads to. The items of lists
// are no step of it: server_groups, labels.
func Knows(path ...string) bool {
	t := reflect.TypeFor[Config]()
	for _, key := range path {
		t = shape(t)
		for t.Kind() == reflect.Slice {
			t = shape(t.Elem())
		}
		if t.Kind() != reflect.Struct && t.Kind() != reflect.Map {
			return false
		}
		if t = valueType(t, key); t == nil {
			return false
		}
	}
	return true
}

// scalars says what the scalars are that are more than a Go kind. Values of those
// not marked open may be secret.
var scalars = map[reflect.Type]struct {
	what string
	open bool
}{
	reflect.TypeFor[model.Duration]():       {"a duration such as 30s, 5m or 1h30m", true},
	reflect.TypeFor[groupconfig.Time]():     {"a time, as 2026-01-02T15:04:05Z or in seconds since 1970", true},
	reflect.TypeFor[commoncfg.TLSVersion](): {"one of TLS10, TLS11, TLS12, TLS13", true},
	reflect.TypeFor[commoncfg.URL]():        {"a URL", false},

	reflect.TypeFor[upstream.TracingClientType]():      {"grpc or http", true},
	reflect.TypeFor[upstream.AlertmanagerAPIVersion](): {"v2", true},
	reflect.TypeFor[model.LabelName]():                 {"the name of a label", true},
	reflect.TypeFor[relabel.Regexp]():                  {"a regular expression", true},
	reflect.TypeFor[relabel.Action]():                  {"one of replace, keep, drop, hashmod, labelmap, labeldrop, labelkeep, lowercase, uppercase, keepequal, dropequal", true},
}

// describe says what is expected at a place, and whether a scalar there can be
// shown.
func describe(t reflect.Type) (what string, open bool) {
	t = shape(t)
	if s, ok := scalars[t]; ok {
		return s.what, s.open
	}
	switch t.Kind() {
	case reflect.Struct:
		if keys := keysOf(t); len(keys) <= 5 {
			return "a mapping with the keys " + strings.Join(keys, ", "), false
		}
		return "a mapping of keys to values", false
	case reflect.Map:
		return "a mapping of names to " + plural(t.Elem()), false
	case reflect.Slice:
		return "a list of " + plural(t.Elem()), false
	case reflect.Bool:
		return "true or false", true
	case reflect.String:
		return "a string", false
	}
	return "a number", true
}

func plural(t reflect.Type) string {
	switch t = shape(t); {
	case t.Kind() == reflect.Slice:
		return "lists of " + plural(t.Elem())
	case t.Kind() == reflect.String:
		return "strings"
	case t.Kind() == reflect.Interface:
		return "values"
	}
	return "mappings"
}

// nearest returns the key that is spelt most like name, or "".
func nearest(name string, keys []string) string {
	normal := strings.NewReplacer("-", "", "_", "").Replace
	best, bestDistance := "", 1+min(3, (len(name)+1)/3)
	for _, key := range keys {
		d := distance(name, key)
		if strings.EqualFold(normal(name), normal(key)) {
			d = 0
		}
		if d < bestDistance {
			best, bestDistance = key, d
		}
	}
	return best
}

// distance is the number of letters to insert, delete, replace, or swap with
// their neighbour, that makes b of a.
func distance(a, b string) int {
	if len(a) > 2*len(b)+3 {
		return len(a) // no need to know it exactly
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}

// parentOf returns the key of t below which key belongs, or "". listed reports whether that has a list.
func parentOf(t reflect.Type, key string) (parent string, listed bool) {
	for _, f := range fieldsOf(t) {
		below, list := shape(f.typ), false
		if below.Kind() == reflect.Slice {
			below, list = below.Elem(), true
		}
		if slices.Contains(keysOf(below), key) {
			return f.key, list
		}
	}
	return "", false
}
