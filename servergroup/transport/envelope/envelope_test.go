package envelope

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	v1 "github.com/prometheus/prometheus/web/api/v1"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/oneprom/oneprom/servergroup/transport/meter"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errOver = errors.New("over")

// charged returns a meter that charges up to a limit, and where it says how much it has.
func charged(limit int) (*meter.Meter, *int) {
	n := new(int)
	return meter.New(context.Background(), func(bytes int) error {
		if *n += bytes; *n > limit {
			return errOver
		}
		return nil
	}), n
}

// rule has what the types of the API have: embedded fields, pointers, and types that decode themselves.
type rule struct {
	Hidden
	Rules    []rule              `json:"rules"`
	Labels   labels.Labels       `json:"labels"`
	At       *time.Time          `json:"at"`
	Counts   map[string]int      `json:"counts"`
	ByName   map[string][]Hidden `json:"byName"`
	Raw      json.RawMessage     `json:"raw"`
	Pointers []*Hidden           `json:"pointers"`
	Skipped  string              `json:"-"`
	Any      any                 `json:"any,omitempty"`
}

// Hidden is embedded in rule, which has fields of its own for some of its fields.
type Hidden struct {
	Name  string   `json:"name"`
	Rules []string `json:"rules"`
	Value float64  `json:"value"`
}

var bodies = []string{
	`{"status":"success","data":{"name":"a","value":1.5,"labels":{"a":"b"},"at":"2026-01-02T03:04:05Z","counts":{"x":1,"y":2}}}`,
	`{"status":"success","data":{"rules":[{"name":"b","rules":[{}]},{},null],"pointers":[{"name":"c"},null],"at":null,"labels":null}}`,
	`{"status":"success","data":{"byName":{"m":[{"name":"q"}],"n":[],"o":null},"raw":[1, {"z":2}],"any":[1,"2",{"a":[]}],"unknown":{"deep":[[]]}}}`,
	`{"status":"error","errorType":"bad_data","error":"no","warnings":["w","é"],"infos":null,"isPartial":true,"data":null}`,
	`{"status":"success"}`,
	`{"data":{"NAME":"large letters","value":null}}`,
	`null`, `{}`, ``, `[`, `{"data":`, `{"data":[]}`, `{"data":{"name":7}}`, `{"data":{"rules":{}}}`, `{"data":{}} {}`, `{"data":{"at":"yesterday"}}`, `{"status":7}`,
}

// asJSON decodes as encoding/json does.
func asJSON(body string) (*Response, rule, error) {
	var e struct {
		Response
		Data json.RawMessage `json:"data"`
	}
	var data rule
	err := json.Unmarshal([]byte(body), &e)
	if err == nil && e.Data != nil {
		e.HasData = true
		err = json.Unmarshal(e.Data, &data)
	}
	return &e.Response, data, err
}

func requireAsJSON(t *testing.T, body string) {
	t.Helper()
	want, wantData, wantErr := asJSON(body)
	m, n := charged(1 << 30)
	var data rule
	got, err := Decode(strings.NewReader(body), m, &data)
	if wantErr != nil {
		require.Error(t, err, "%s: %v", body, wantErr)
		return
	}
	require.NoError(t, err, body)
	require.Equal(t, want.Status, got.Status, body)
	require.Equal(t, want.Error, got.Error, body)
	require.Len(t, got.Warnings, len(want.Warnings), body)
	require.Equal(t, want.IsPartial, got.IsPartial, body)
	a, err := json.Marshal(wantData)
	require.NoError(t, err)
	b, err := json.Marshal(data)
	require.NoError(t, err)
	require.JSONEq(t, string(a), string(b), body)
	require.LessOrEqual(t, made(reflect.ValueOf(data)), *n, body)
}

// made is what a value holds beside itself, at least (bytes).
func made(v reflect.Value) (n int) {
	switch v.Kind() {
	case reflect.String:
		return v.Len()
	case reflect.Slice:
		n = v.Len() * int(v.Type().Elem().Size())
		for i := range v.Len() {
			n += made(v.Index(i))
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			n += it.Key().Len() + int(it.Value().Type().Size()) + made(it.Value())
		}
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			n = int(v.Elem().Type().Size()) + made(v.Elem())
		}
	case reflect.Struct:
		if ls, ok := reflect.TypeAssert[labels.Labels](v); ok {
			return int(ls.ByteSize())
		}
		if v.Type() == reflect.TypeFor[time.Time]() {
			return 0
		}
		for _, f := range v.Fields() {
			n += made(f)
		}
	}
	return n
}

func TestDecode_MakesWhatEncodingJSONMakes(t *testing.T) {
	for _, body := range bodies {
		requireAsJSON(t, body)
	}
}

// FuzzDecode: any bytes make what encoding/json makes of them, or are an error, and what is made is charged.
func FuzzDecode(f *testing.F) {
	for _, body := range bodies {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		if strings.Contains(body, `\u`) || json.Valid([]byte(body)) && repeatsKey(json.NewDecoder(strings.NewReader(body))) || strings.Count(body, "[")+strings.Count(body, "{") > 1000 {
			return // keys in other spellings or given twice, and depths that encoding/json refuses
		}
		requireAsJSON(t, body)
	})
}

// repeatsKey reports whether an object has a key twice, or in several spellings: encoding/json merges their values.
func repeatsKey(d *json.Decoder) bool {
	t, err := d.Token()
	if err != nil || t != json.Delim('{') && t != json.Delim('[') {
		return false
	}
	seen := map[string]bool{}
	for d.More() {
		if t == json.Delim('{') {
			key, err := d.Token()
			if err != nil {
				return false
			}
			name := strings.ToLower(key.(string))
			if seen[name] {
				return true
			}
			seen[name] = true
		}
		if repeatsKey(d) {
			return true
		}
	}
	_, _ = d.Token()
	return false
}

// TestDecode_NeverMakesMoreThanItCharges decodes what becomes most: each response would be many times its budget in memory.
func TestDecode_NeverMakesMoreThanItCharges(t *testing.T) {
	const budget = 2 << 20
	list := func(before, one, after string) string {
		return `{"status":"success","data":` + before + strings.Repeat(one+",", 1<<20) + one + after + `}`
	}
	for name, c := range map[string]struct {
		body string
		data any
	}{
		"strings":                       {list("[", `""`, "]"), new([]string)},
		"numbers for strings":           {list("[", `0`, "]"), new([]string)},
		"series":                        {list("[", `{}`, "]"), new([]labels.Labels)},
		"a series of labels":            {list("[{", `"a":""`, "}]"), new([]labels.Labels)},
		"metadata":                      {list("{", `"a":[{}]`, "}"), new(map[string][]Hidden)},
		"targets":                       {list(`{"activeTargets":[`, `{}`, "]}"), new(v1.TargetDiscovery)},
		"targets that are null":         {list(`{"activeTargets":[`, `null`, "]}"), new(v1.TargetDiscovery)},
		"rules":                         {list(`{"rules":[`, `{}`, "]}"), new(rule)},
		"whatever":                      {list(`{"any":[`, `[]`, "]}"), new(rule)},
		"warnings":                      {`{"warnings":[` + strings.Repeat(`"",`, 1<<20) + `""]}`, new(rule)},
		"one long text":                 {`{"data":["` + strings.Repeat("a", 8<<20) + `"]}`, new([]string)},
		"a long text that nobody wants": {`{"other":"` + strings.Repeat("a", 8<<20) + `"}`, new([]string)},
	} {
		t.Run(name, func(t *testing.T) {
			m, n := charged(budget)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Decode(strings.NewReader(c.body), m, c.data)
			runtime.ReadMemStats(&after)
			require.Error(t, err)
			require.Less(t, int(after.TotalAlloc-before.TotalAlloc), 8*budget, // with garbage
				"%v: charged %d", err, *n)
		})
	}
}

func TestDecode_EndsWithItsQuery(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	over := errors.New("the query is over")
	cancel(over)
	_, err := Decode(strings.NewReader(`{"data":[`+strings.Repeat(`"",`, 1<<16)), meter.New(ctx, nil), new([]string))
	require.ErrorIs(t, err, over)
}

func TestDecode_ErrorOfTheBodyIsNotOneOfItsFormat(t *testing.T) {
	broken := io.MultiReader(strings.NewReader(`{"data":["a",`), errReader{})
	_, err := Decode(broken, nil, new([]string))
	require.ErrorIs(t, err, errOver)
	_, err = Decode(strings.NewReader(`{"data":["a",`), nil, new([]string))
	var format *FormatError
	require.ErrorAs(t, err, &format)
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errOver }
