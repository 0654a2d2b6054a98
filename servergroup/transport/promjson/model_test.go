package promjson

import (
	"bytes"
	"encoding/json"
	"math"
	"math/big"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/dedup"
)

// The model is a second decoder of the same form of JSON, over encoding/json: slow,
// simple and strict. It panics with a rejected for what it does not accept.

type rejected string

// member is a member of an object, in the order of the text.
type member struct {
	key string
	val any
}

// parse returns the value as nil, bool, string, json.Number, []any or []member.
func parse(dec *json.Decoder) any {
	tok, err := dec.Token()
	must(err == nil, "token")
	switch tok {
	case json.Delim('['):
		list := []any{}
		for dec.More() {
			list = append(list, parse(dec))
		}
		_, err = dec.Token()
		must(err == nil, "]")
		return list
	case json.Delim('{'):
		list := []member{}
		for dec.More() {
			key, err := dec.Token()
			must(err == nil, "key")
			list = append(list, member{key.(string), parse(dec)})
		}
		_, err = dec.Token()
		must(err == nil, "}")
		return list
	}
	return tok
}

func must(ok bool, why string) {
	if !ok {
		panic(rejected(why))
	}
}

// object returns the members with known keys.
func object(v any, known ...string) map[string]any {
	list, ok := v.([]member)
	must(ok, "object")
	out := map[string]any{}
	for _, m := range list {
		for _, k := range known {
			if k == m.key {
				_, twice := out[k]
				must(!twice, "twice "+k)
				out[k] = m.val
			}
		}
	}
	return out
}

func array(v any) []any {
	if v == nil {
		return nil
	}
	list, ok := v.([]any)
	must(ok, "array")
	return list
}

func text(v any) string {
	s, ok := v.(string)
	must(ok, "string")
	return s
}

func textOrNull(v any) string {
	if v == nil {
		return ""
	}
	return text(v)
}

func texts(v any) (out []string) {
	for _, s := range array(v) {
		out = append(out, text(s))
	}
	return out
}

func number(v any) float64 {
	f, err := strconv.ParseFloat(text(v), 64)
	must(err == nil, "number")
	return f
}

// instant is exact where it says so: without an exponent and with up to three
// decimals.
func instant(v any) int64 {
	n, ok := v.(json.Number)
	must(ok, "time")
	_, decimals, _ := strings.Cut(n.String(), ".")
	if !strings.ContainsAny(n.String(), "eE") && len(decimals) <= 3 {
		r, ok := new(big.Rat).SetString(n.String())
		must(ok, "time")
		if new(big.Rat).Abs(r).Cmp(big.NewRat(math.MaxInt64/1000, 1)) < 0 {
			return r.Mul(r, big.NewRat(1000, 1)).Num().Int64()
		}
	}
	f, err := n.Float64()
	f = math.Round(f * 1000)
	must(err == nil && f >= math.MinInt64 && f < math.MaxInt64, "time range")
	return int64(f)
}

func tuple(v any, n int) []any {
	list, ok := v.([]any)
	must(ok && len(list) == n, "tuple")
	return list
}

// modelDecode decodes body; ok is false if it is not a response.
func modelDecode(body []byte) (res *Result, ok bool) {
	defer func() {
		if r := recover(); r != nil {
			res, ok = nil, false
			_ = r.(rejected)
		}
	}()
	must(json.Valid(body), "valid")
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	top := object(parse(dec), responseKeys...)
	res = &Result{
		Status: textOrNull(top["status"]), ErrorType: textOrNull(top["errorType"]), Error: textOrNull(top["error"]),
		Warnings: texts(top["warnings"]), Infos: texts(top["infos"]), IsPartial: top["isPartial"] == true,
	}
	must(res.Status == "success" || res.Status == "error", "status")
	data, hasData := top["data"]
	must(hasData || res.Status == "error", "data")
	if _, isObject := data.([]member); isObject {
		modelData(res, object(data, dataKeys...))
	} else {
		must(data == nil || res.Status == "error", "data")
	}
	return res, true
}

func modelData(res *Result, data map[string]any) {
	res.ResultType = textOrNull(data["resultType"])
	success := res.Status == "success"
	result, hasResult := data["result"]
	must(hasResult || !success, "result")
	list := array(result)
	pair := false
	if len(list) > 0 {
		_, pair = list[0].(json.Number)
	}
	if pair {
		p := tuple(result, 2)
		t, s := instant(p[0]), text(p[1])
		must(!success || res.ResultType == "scalar" || res.ResultType == "string", "pair")
		switch {
		case success && res.ResultType == "string":
			res.Text = s
		case success:
			res.Series = []Series{{Samples: dedup.Samples{T: []int64{t}, F: []float64{number(s)}}}}
		}
		return
	}
	points := 0
	for _, e := range list {
		s, isPoint := modelSeries(object(e, seriesKeys...))
		res.Series = append(res.Series, s)
		if isPoint {
			points++
		}
	}
	if success {
		must(res.ResultType == "matrix" && points == 0 || res.ResultType == "vector" && points == len(list), "type")
	}
}

func modelSeries(m map[string]any) (s Series, isPoint bool) {
	s.Labels = modelLabels(m["metric"])
	value, hasValue := m["value"]
	hist, hasHist := m["histogram"]
	_, hasValues := m["values"]
	_, hasHists := m["histograms"]
	values, hists := array(m["values"]), array(m["histograms"])
	if hasValue || hasHist {
		must(hasValue != hasHist && !hasValues && !hasHists, "kinds")
	}
	if hasValue {
		values = []any{value}
	}
	if hasHist {
		hists = []any{hist}
	}
	at := map[int64]*histogram.FloatHistogram{}
	var ts []int64
	for i, v := range hists {
		p := tuple(v, 2)
		t := instant(p[0])
		must(i == 0 || t > ts[i-1], "order")
		ts = append(ts, t)
		at[t] = modelHistogram(p[1])
	}
	j := 0
	put := func(t int64) {
		s.Samples.AppendFloatHistogram(0, t, at[t])
	}
	for i, v := range values {
		p := tuple(v, 2)
		t, f := instant(p[0]), number(p[1])
		must(i == 0 || t > s.Samples.T[len(s.Samples.T)-1] && at[t] == nil, "order")
		for ; j < len(ts) && ts[j] < t; j++ {
			put(ts[j])
		}
		must(at[t] == nil, "float and histogram")
		s.Samples.Append(0, t, f)
	}
	for ; j < len(ts); j++ {
		put(ts[j])
	}
	return s, hasValue || hasHist
}

func modelLabels(v any) labels.Labels {
	if v == nil {
		return labels.EmptyLabels()
	}
	list, ok := v.([]member)
	must(ok, "metric")
	b := labels.NewBuilder(labels.EmptyLabels())
	seen := map[string]bool{}
	for _, m := range list {
		val := text(m.val)
		must(m.key != "", "name")
		if val == "" {
			continue
		}
		must(!seen[m.key], "label twice")
		seen[m.key] = true
		b.Set(m.key, val)
	}
	return b.Labels()
}

// modelHistogram reads the text; what the buckets mean is tested elsewhere.
func modelHistogram(v any) *histogram.FloatHistogram {
	m := object(v, histogramKeys...)
	count, sum := number(m["count"]), number(m["sum"])
	var buckets []bucket
	for _, v := range array(m["buckets"]) {
		b := tuple(v, 4)
		code, ok := b[0].(json.Number)
		must(ok && len(code) == 1 && code[0] <= '3', "code")
		buckets = append(buckets, bucket{code[0] - '0', number(b[1]), number(b[2]), number(b[3])})
	}
	h, reason := rebuild(buckets)
	must(reason == "", reason)
	h.Count, h.Sum = count, sum
	return h
}
