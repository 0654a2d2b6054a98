package promjson

import (
	"bytes"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/dedup"
)

func floats(tv ...float64) (s dedup.Samples) {
	for i := 0; i < len(tv); i += 2 {
		s.T, s.F = append(s.T, int64(tv[i])), append(s.F, tv[i+1])
	}
	return s
}

// responses are the bodies of successful decodings, and what they decode to.
var responses = []struct {
	name, body string
	want       Result
}{
	{
		name: "matrix",
		body: `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"up","job":"a"},"values":[[1435781430.781,"1"],[1435781445.781,"0.5"]]},{"metric":{},"values":[[4,"-0"]]}]}}`,
		want: Result{ResultType: "matrix", Series: []Series{
			{Labels: labels.FromStrings("__name__", "up", "job", "a"), Samples: floats(1435781430781, 1, 1435781445781, .5)},
			{Samples: floats(4000, math.Copysign(0, -1))},
		}},
	},
	{
		name: "vector",
		body: `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"b":"2","a":"1"},"value":[-59.200,"+Inf"]},{"metric":{"c":"3"},"value":[1.7e9,"NaN"]}]}}`,
		want: Result{ResultType: "vector", Series: []Series{
			{Labels: labels.FromStrings("a", "1", "b", "2"), Samples: floats(-59200, math.Inf(1))},
			{Labels: labels.FromStrings("c", "3"), Samples: floats(1700000000000, math.NaN())},
		}},
	},
	{
		name: "scalar",
		body: `{"status":"success","data":{"resultType":"scalar","result":[1435781451.781,"1e300"]}}`,
		want: Result{ResultType: "scalar", Series: []Series{{Samples: floats(1435781451781, 1e300)}}},
	},
	{
		name: "string",
		body: `{"status":"success","data":{"resultType":"string","result":[4,"a\"b\\\/\b\f\n\r\t\u00e9\uD83D\ude00\ud83dx\ude00\ud800\ud83d\ude00"]}}`,
		want: Result{ResultType: "string", Text: "a\"b\\/\b\f\n\r\té😀\ufffdx\ufffd\ufffd😀"},
	},
	{
		name: "scalar, type after result, status last",
		body: `{"data":{"result":[1,"2"],"resultType":"scalar"},"status":"success"}`,
		want: Result{ResultType: "scalar", Series: []Series{{Samples: floats(1000, 2)}}},
	},
	{
		name: "any order, white space, escaped keys, unknown keys",
		body: " {\t\"infos\" : [ \"i\" ] , \"warnings\":[\"w1\",\"w2\"],\r\n\"x\":{\"y\":[1,-2.5e+3,true,false,null,\"s\",[],{}]}, \"d\\u0061ta\":{\"stats\":{},\"result\":[ { \"values\" : [ [ 1 , \"2\" ] , [2,\"\\u0033\"] ,[3.5,\"4\"]], \"metric\" : { \"a\" : \"b\" , \"empty\":\"\" } , \"z\":0} ],\"resultType\":\"matrix\"},\"status\":\"success\"} \n",
		want: Result{ResultType: "matrix", Warnings: []string{"w1", "w2"}, Infos: []string{"i"}, Series: []Series{
			{Labels: labels.FromStrings("a", "b"), Samples: floats(1000, 2, 2000, 3, 3500, 4)},
		}},
	},
	{
		name: "partial, as VictoriaMetrics says it",
		body: `{"status":"success","isPartial":true,"data":{"resultType":"vector","result":[]}}`,
		want: Result{ResultType: "vector", IsPartial: true},
	},
	{
		name: "not partial",
		body: `{"status":"success","isPartial":false,"data":{"resultType":"vector","result":[]}}`,
		want: Result{ResultType: "vector"},
	},
	{
		name: "histograms and floats",
		body: `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"histograms":[[2,{"count":"6","sum":"8","buckets":[[0,"0.5","1","1"],[0,"1","2","5"]]}],[4,{"sum":"0","count":"0"}]],"values":[[1,"1"],[3,"3"]]}]}}`,
		want: Result{ResultType: "matrix", Series: []Series{{Samples: dedup.Samples{
			T: []int64{1000, 2000, 3000, 4000}, F: []float64{1, 0, 3, 0},
			FH: []*histogram.FloatHistogram{
				nil,
				{Count: 6, Sum: 8, PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}}, PositiveBuckets: []float64{1, 5}},
				nil,
				{Schema: histogram.ExponentialSchemaMax},
			},
		}}}},
	},
	{
		name: "histogram in a vector",
		body: `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"histogram":[2,{"count":"1","sum":"8","x":1,"buckets":[[3,"-Inf","2","1"]]}]}]}}`,
		want: Result{ResultType: "vector", Series: []Series{{Samples: dedup.Samples{
			T: []int64{2000}, F: []float64{0},
			FH: []*histogram.FloatHistogram{{
				Schema: histogram.CustomBucketsSchema, Count: 1, Sum: 8, CustomValues: []float64{2},
				PositiveSpans: []histogram.Span{{Length: 1}}, PositiveBuckets: []float64{1},
			}},
		}}}},
	},
	{name: "empty matrix", body: `{"status":"success","data":{"resultType":"matrix","result":[]}}`, want: Result{ResultType: "matrix"}},
	{name: "null result", body: `{"status":"success","data":{"resultType":"vector","result":null},"warnings":null}`, want: Result{ResultType: "vector"}},
	{name: "null data", body: `{"status":"success","data":null}`, want: Result{}},
	{
		name: "series without samples",
		body: `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"a":"b"}},{"metric":null,"values":null}]}}`,
		want: Result{ResultType: "matrix", Series: []Series{{Labels: labels.FromStrings("a", "b")}, {}}},
	},
	{
		name: "bytes that are not UTF-8",
		body: "{\"status\":\"success\",\"data\":{\"resultType\":\"vector\",\"result\":[{\"metric\":{\"a\":\"\xff\xfe\xc3\\u00e9é\"},\"value\":[1,\"1\"]}]}}",
		want: Result{ResultType: "vector", Series: []Series{{Labels: labels.FromStrings("a", "\ufffd\ufffd\ufffdéé"), Samples: floats(1000, 1)}}},
	},
	{
		name: "error",
		body: `{"status":"error","errorType":"execution","error":"no \"x\"","data":{"resultType":"","result":null}}`,
		want: Result{Status: "error", ErrorType: "execution", Error: `no "x"`},
	},
	{name: "error with other data", body: `{"status":"error","data":"","error":"e","errorType":null}`, want: Result{Status: "error", Error: "e"}},
}

func TestDecode(t *testing.T) {
	for _, tc := range responses {
		t.Run(tc.name, func(t *testing.T) {
			if tc.want.Status == "" {
				tc.want.Status = "success"
			}
			got, err := Decode(strings.NewReader(tc.body), Options{})
			require.NoError(t, err)
			requireSame(t, &tc.want, got)
			got, err = Decode(iotest.OneByteReader(strings.NewReader(tc.body)), Options{})
			require.NoError(t, err)
			requireSame(t, &tc.want, got)
			got, err = Decode(iotest.DataErrReader(strings.NewReader(tc.body)), Options{})
			require.NoError(t, err)
			requireSame(t, &tc.want, got)
		})
	}
}

// requireSame compares bit by bit, so that NaN is NaN and -0 is not 0.
func requireSame(t testing.TB, want, got *Result) {
	t.Helper()
	require.Len(t, got.Series, len(want.Series))
	for i, w := range want.Series {
		g := got.Series[i]
		require.Equal(t, w.Labels.String(), g.Labels.String())
		require.Equal(t, w.Samples.T, g.Samples.T)
		require.Equal(t, bitsOf(w.Samples.F), bitsOf(g.Samples.F))
		require.Len(t, g.Samples.FH, len(w.Samples.FH))
		for j, h := range w.Samples.FH {
			requireSameHistogram(t, h, g.Samples.FH[j])
		}
		require.Nil(t, g.Samples.H)
		require.Nil(t, g.Samples.ST)
	}
	w, g := *want, *got
	w.Series, g.Series = nil, nil
	require.Equal(t, w, g)
}

func requireSameHistogram(t testing.TB, want, got *histogram.FloatHistogram) {
	t.Helper()
	if want == nil || got == nil {
		require.Equal(t, want, got)
		return
	}
	require.True(t, want.Equals(got), "want %+v\ngot  %+v", want, got)
	require.Equal(t, want.CounterResetHint, got.CounterResetHint)
}

func bitsOf(fs []float64) []uint64 {
	var out []uint64
	for _, f := range fs {
		out = append(out, math.Float64bits(f))
	}
	return out
}

// in puts elements of a matrix into a response.
func in(elements string) string {
	return `{"status":"success","data":{"resultType":"matrix","result":[` + elements + `]}}`
}

func TestDecodeErrors(t *testing.T) {
	hist := func(h string) string { return in(`{"histograms":[[1,` + h + `]]}`) }
	for _, tc := range []struct{ name, body, want string }{
		{"nothing", ``, `byte 0: expected an object: unexpected EOF`},
		{"text", `<html>`, `byte 0: expected an object, found "<"`},
		{"null", `null`, `byte 0: expected an object, found "n"`},
		{"no status", `{"data":null}`, `byte 13: expected the status "success" or "error", found ""`},
		{"other status", `{"status":"ok"}`, `found "ok"`},
		{"status is no string", `{"status":1}`, `byte 10: expected a string, found "1"`},
		{"status twice", `{"status":"success","status":"error"}`, `byte 29: expected the key "status" only once`},
		{"no data", `{"status":"success"}`, `byte 20: expected data in a response with status "success"`},
		{"data is a list", `{"status":"success","data":[1]}`, `byte 27: expected an object as data`},
		{"data is a number", `{"data":17,"status":"success"}`, `byte 8: expected an object as data`},
		{"no result", `{"status":"success","data":{"resultType":"matrix"}}`, `expected a result in data`},
		{"no result type", `{"status":"success","data":{"result":[]}}`, `expected the result type matrix, vector, scalar or string, found ""`},
		{"result is an object", `{"status":"success","data":{"result":{}}}`, `byte 37: expected an array, found "{"`},
		{"null scalar", `{"status":"success","data":{"resultType":"scalar","result":null}}`, `expected a result of the type scalar`},
		{"matrix of a pair", `{"status":"success","data":{"resultType":"matrix","result":[1,"2"]}}`, `expected a result of the type matrix`},
		{"string of series", `{"status":"success","data":{"resultType":"string","result":[{}]}}`, `expected a result of the type string`},
		{"scalar is no number", `{"status":"success","data":{"resultType":"scalar","result":[1,"x"]}}`, `byte 62: expected a number, found "x"`},
		{"scalar of three", `{"status":"success","data":{"resultType":"scalar","result":[1,"2",3]}}`, `byte 65: expected ']', found ","`},
		{"vector in a matrix", in(`{"value":[1,"1"]}`), `expected values or histograms in all series of a matrix`},
		{"matrix in a vector", `{"status":"success","data":{"resultType":"vector","result":[{"value":[1,"1"]},{"values":[[1,"1"]]}]}}`, `expected a value or a histogram in all samples of a vector`},
		{"value and values", in(`{"values":[],"value":[1,"1"]}`), `expected either one sample or lists of samples in a series`},
		{"value and histogram", in(`{"value":[1,"1"],"histogram":[1,{"count":"1","sum":"1"}]}`), `expected either one sample or lists`},
		{"null series", in(`null`), `byte 60: expected an object, found "n"`},
		{"number among series", in(`{},1`), `byte 63: expected an object, found "1"`},
		{"null sample", in(`{"values":[null]}`), `byte 71: expected a sample, found "n"`},
		{"value is a number", in(`{"values":[[1,2]]}`), `byte 74: expected a number in a string, found "2"`},
		{"value is text", in(`{"values":[[1,"2x"]]}`), `byte 74: expected a number in a string, found "2x"`},
		{"value is empty", in(`{"values":[[1,""]]}`), `byte 74: expected a number in a string, found ""`},
		{"value out of range", in(`{"values":[[1,"1e999"]]}`), `expected a number in a string, found "1e999"`},
		{"time is a string", in(`{"values":[["1","2"]]}`), `byte 72: expected a time in seconds, found "\""`},
		{"time with a zero in front", in(`{"values":[[01,"2"]]}`), `byte 73: expected ',', found "1"`},
		{"time ends in a point", in(`{"values":[[1.,"2"]]}`), `byte 74: expected a digit, found ","`},
		{"time is a sign", in(`{"values":[[-,"2"]]}`), `byte 73: expected a time in seconds, found ","`},
		{"time has no exponent", in(`{"values":[[1e,"2"]]}`), `byte 74: expected a digit, found ","`},
		{"time too large", in(`{"values":[[1e16,"2"]]}`), `expected a time that fits in 64 bits of ms, found "1e16"`},
		{"sample of three", in(`{"values":[[1,"2",3]]}`), `byte 77: expected ']', found ","`},
		{"sample of one", in(`{"values":[[1]]}`), `byte 73: expected ',', found "]"`},
		{"comma at the end", in(`{"values":[[1,"2"],]}`), `byte 79: expected a sample, found "]"`},
		{"no comma", in(`{"values":[[1,"2"][2,"2"]]}`), `byte 78: expected ',' or ']', found "["`},
		{"comma at the end of an object", in(`{"metric":{},}`), `byte 73: expected a key, found "}"`},
		{"no colon", in(`{"metric"}`), `byte 69: expected ':', found "}"`},
		{"samples in disorder", in(`{"values":[[2,"2"],[1,"2"],[3,"2"]]}`), `byte 80: expected a time after that of the sample before, found 1000 ms`},
		{"time repeated", in(`{"values":[[2,"2"],[2,"2"]]}`), `byte 80: expected a time after that of the sample before, found 2000 ms`},
		{"histograms in disorder", in(`{"histograms":[[2,{"count":"1","sum":"1"}],[1,{"count":"1","sum":"1"}]]}`), `expected a time after that of the sample before, found 1000 ms`},
		{"histogram time repeated", in(`{"histograms":[[2,{"count":"1","sum":"1"}],[2,{"count":"1","sum":"1"}]]}`), `expected a time after that of the sample before, found 2000 ms`},
		{"float and histogram at once", in(`{"values":[[2,"2"]],"histograms":[[2,{"count":"1","sum":"1"}]]}`), `byte 60: expected only one sample at 2000 ms in a series`},
		{"values twice", in(`{"values":[],"values":[]}`), `expected the key "values" only once`},
		{"label twice", in(`{"metric":{"a":"1","b":"2","a":"3"}}`), `byte 70: expected the label "a" only once`},
		{"label without a name", in(`{"metric":{"":"1"}}`), `expected label names that are not empty`},
		{"label is a number", in(`{"metric":{"a":1}}`), `byte 75: expected a string, found "1"`},
		{"line feed in a string", in("{\"metric\":{\"a\n\":\"\"}}"), `byte 73: expected the end of the string, found "\n"`},
		{"unknown escape", in(`{"metric":{"\x":""}}`), `byte 73: expected an escape sequence, found "x"`},
		{"cut in hexadecimal digits", `{"\u12`, `byte 6: expected a hexadecimal digit: unexpected EOF`},
		{"bad hexadecimal digit", in(`{"metric":{"\u12g4":""}}`), `byte 76: expected a hexadecimal digit, found "g"`},
		{"bad literal", `{"x":nul}`, `byte 8: expected null, found "}"`},
		{"bad value", `{"x":+1}`, `byte 5: expected a value, found "+"`},
		{"warnings are a string", `{"warnings":"w"}`, `byte 12: expected an array of strings, found "\""`},
		{"warnings are numbers", `{"warnings":[1]}`, `byte 13: expected a string, found "1"`},
		{"something after the end", `{"status":"success","data":null} {`, `byte 33: expected the end of the input, found "{"`},
		{"nested too deeply", `{"x":` + strings.Repeat("[", 1000), `expected at most 100 levels of values`},
		{"long string", `{"status":"` + strings.Repeat("s", maxToken+1), `expected a token of at most 1048576 bytes`},
		{"long escapes", `{"status":"` + strings.Repeat(`\n`, maxToken+2), `expected a token of at most 1048576 bytes`},
		{"long number", in(`{"values":[[1` + strings.Repeat("0", maxToken)), `expected a token of at most 1048576 bytes`},
		{"histogram without sum", hist(`{"count":"1"}`), `byte 78: expected count and sum in a histogram`},
		{"histogram is null", hist(`null`), `byte 78: expected an object, found "n"`},
		{"bucket of three", hist(`{"buckets":[[0,"1","2"]]}`), `expected ',', found "]"`},
		{"bucket of five", hist(`{"buckets":[[0,"1","2","3","4"]]}`), `expected ']', found ","`},
		{"bucket code 4", hist(`{"buckets":[[4,"1","2","3"]]}`), `byte 91: expected the code of a bucket, 0 to 3, found "4"`},
		{"bucket count is a number", hist(`{"buckets":[[0,"1","2",3]]}`), `expected a number in a string, found "3"`},
		{"buckets in disorder", hist(`{"count":"1","sum":"1","buckets":[[0,"2","4","1"],[0,"1","2","1"]]}`), `byte 78: expected the buckets of a histogram, found buckets in disorder`},
		{"negative after positive", hist(`{"count":"1","sum":"1","buckets":[[0,"2","4","1"],[1,"-2","-1","1"]]}`), `found buckets in disorder`},
		{"negative in disorder", hist(`{"count":"1","sum":"1","buckets":[[1,"-2","-1","1"],[1,"-4","-2","1"]]}`), `found buckets in disorder`},
		{"zero bucket beside 0", hist(`{"count":"1","sum":"1","buckets":[[3,"-2","1","1"]]}`), `found a zero bucket that is not around 0`},
		{"zero bucket and custom bounds", hist(`{"count":"1","sum":"1","buckets":[[3,"-1","1","1"],[0,"2","3","1"]]}`), `found bounds that are of no exponential schema`},
		{"open custom bucket", hist(`{"count":"1","sum":"1","buckets":[[2,"2","3","1"]]}`), `found a custom bucket with wrong bounds`},
		{"bucket of NaN", hist(`{"count":"1","sum":"1","buckets":[[0,"NaN","1","1"]]}`), `found buckets in disorder`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			res, err := Decode(strings.NewReader(tc.body), Options{})
			require.Nil(t, res)
			require.ErrorContains(t, err, tc.want)
			require.ErrorContains(t, err, "promjson: byte ")
			_, slow := Decode(iotest.OneByteReader(strings.NewReader(tc.body)), Options{})
			require.EqualError(t, slow, err.Error())
		})
	}
}

// TestDecodeTruncated cuts every response at every byte.
func TestDecodeTruncated(t *testing.T) {
	for _, tc := range responses {
		body := strings.TrimRight(tc.body, " \n")
		for n := range len(body) {
			_, err := Decode(strings.NewReader(body[:n]), Options{})
			require.ErrorIs(t, err, io.ErrUnexpectedEOF, "%s, %d bytes", tc.name, n)
			require.ErrorContains(t, err, "expected")

			broken := errors.New("connection reset")
			_, err = Decode(io.MultiReader(strings.NewReader(body[:n]), iotest.ErrReader(broken)), Options{})
			require.ErrorIs(t, err, broken)
		}
		// Where all was read, an end that is not regular is still an error.
		broken := errors.New("connection reset")
		_, err := Decode(io.MultiReader(strings.NewReader(body), iotest.ErrReader(broken)), Options{})
		require.ErrorIs(t, err, broken)
	}
}

type emptyReader struct{}

func (emptyReader) Read([]byte) (int, error) { return 0, nil }

func TestDecodeNoProgress(t *testing.T) {
	_, err := Decode(emptyReader{}, Options{})
	require.ErrorIs(t, err, io.ErrNoProgress)
}

// TestDecodeWindow moves the borders of the window over every byte of a body.
func TestDecodeWindow(t *testing.T) {
	body := responses[5].body
	for shift := range len(body) + 1 {
		pad := strings.Repeat(" ", windowSize-shift)
		got, err := Decode(strings.NewReader(pad+body), Options{})
		require.NoError(t, err)
		want := responses[5].want
		want.Status = "success"
		requireSame(t, &want, got)
	}
}

func TestDecodeLabels(t *testing.T) {
	calls := 0
	opts := Options{Labels: func(l labels.Labels) labels.Labels {
		calls++
		return labels.NewBuilder(l).Del("replica").Set("region", "eu").Labels()
	}}
	got, err := Decode(strings.NewReader(in(`{"metric":{"replica":"a","job":"j"}},{"metric":{}}`)), opts)
	require.NoError(t, err)
	require.Equal(t, 2, calls)
	require.Equal(t, labels.FromStrings("job", "j", "region", "eu"), got.Series[0].Labels)
	require.Equal(t, labels.FromStrings("region", "eu"), got.Series[1].Labels)

	got, err = Decode(strings.NewReader(`{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}`), opts)
	require.NoError(t, err)
	require.Equal(t, labels.FromStrings("region", "eu"), got.Series[0].Labels)
}

// endless is rest, and then what next returns, for ever: or rather until most
// bytes were read, by when the test has failed.
type endless struct {
	rest []byte
	next func(i int) string
	n    int
	read int64
	most int64
}

func (e *endless) Read(p []byte) (int, error) {
	for len(e.rest) < len(p) {
		e.rest = append(e.rest, e.next(e.n)...)
		e.n++
	}
	n := copy(p, e.rest)
	e.rest = e.rest[n:]
	if e.read += int64(n); e.read > e.most {
		return 0, errors.New("nothing stopped the decoder")
	}
	return n, nil
}

func TestDecodeEndless(t *testing.T) {
	const budget = 4 << 20
	errBudget := errors.New("over budget")
	for _, tc := range []struct {
		name, head string
		next       func(i int) string
		tooLong    bool // ended by the limit of a token, or of labels, before the budget is
	}{
		{name: "samples", head: `{"data":{"result":[{"values":[`, next: func(i int) string { return `[` + itoa(i) + `,"1"],` }},
		{name: "spaced samples", head: `{"data":{"result":[{"values":[`, next: func(i int) string { return ` [ ` + itoa(i) + ` , "1" ] , ` }},
		{name: "series", head: `{"data":{"result":[`, next: func(int) string { return `{},` }},
		{name: "vector", head: `{"data":{"result":[`, next: func(int) string { return `{"metric":{"a":"b"},"value":[1,"1"]},` }},
		{name: "labels", head: `{"data":{"result":[{"metric":{`, next: func(i int) string { return `"` + itoa(i) + `":"x",` }, tooLong: true},
		{name: "histograms", head: `{"data":{"result":[{"histograms":[`, next: func(i int) string { return `[` + itoa(i) + `,{"count":"1","sum":"1"}],` }},
		{name: "buckets", head: `{"data":{"result":[{"histograms":[[1,{"buckets":[`, next: func(int) string { return `[0,"1","2","1"],` }},
		{name: "warnings", head: `{"warnings":[`, next: func(int) string { return `"",` }},
		{name: "infos", head: `{"infos":[`, next: func(int) string { return `"i",` }},
		{name: "error", head: `{"error":"`, next: func(int) string { return `x` }, tooLong: true},
		{name: "escapes", head: `{"error":"`, next: func(int) string { return `\u0061` }, tooLong: true},
		{name: "key", head: `{"`, next: func(int) string { return `x` }, tooLong: true},
		{name: "number", head: `{"x":1`, next: func(int) string { return `1` }, tooLong: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := &endless{rest: []byte(tc.head), next: tc.next, most: 12 * budget}
			charged := 0
			_, err := Decode(r, Options{Charge: func(n int) error {
				if charged += n; charged > budget {
					return errBudget
				}
				return nil
			}})
			if tc.tooLong {
				require.ErrorContains(t, err, "at most")
				return
			}
			require.ErrorIs(t, err, errBudget)
			require.Less(t, charged, budget+2*chargeBatch)
		})
	}
}

func itoa(i int) string {
	var b bytes.Buffer
	writeTime(&b, int64(i)*1000)
	return b.String()
}

// TestDecodeCharge: what is charged is what is held.
func TestDecodeCharge(t *testing.T) {
	body := matrixBody(50, 200, mix)
	charged := 0
	_, err := Decode(bytes.NewReader(body), Options{Charge: func(n int) error { charged += n; return nil }})
	require.NoError(t, err)
	require.GreaterOrEqual(t, charged, 50*200*sampleBytes)
	require.Less(t, charged, 50*200*sampleBytes+50*1536)

	charged = 0
	_, err = Decode(strings.NewReader(`{"status":"error","error":"abc"}`), Options{Charge: func(n int) error { charged += n; return nil }})
	require.NoError(t, err)
	require.Equal(t, len("error")+len("abc"), charged)
}
