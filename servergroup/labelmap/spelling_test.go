package labelmap

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/transport"
)

func TestCanonical_IsWhatPrometheus3Stores(t *testing.T) {
	for value, want := range map[string]string{
		"1": "1.0", "01": "1.0", "+1": "1.0", "1.00": "1.0", "0": "0.0", "-1": "-1.0", "0.50": "0.5", "1e3": "1000.0", "1E3": "1000.0",
		"1000000": "1e+06", "1.0E-4": "0.0001", "1e-7": "1e-07", "inf": "+Inf", "Inf": "+Inf", "nan": "NaN",
	} {
		got, odd := Canonical(value)
		require.Equal(t, want, got)
		require.True(t, odd, value)
	}
	for _, value := range []string{"1.0", "0.5", "+Inf", "-Inf", "NaN", "1e+06", "0.0001", "", "x", "1s", " 1", "1,5"} {
		got, odd := Canonical(value)
		require.Equal(t, value, got)
		require.False(t, odd, value)
	}
}

var (
	oddValues = &Spellings{Of: map[string]Spelling{
		"le":       {Values: []string{"1", "10", "2e0"}, Metrics: map[string]Meaning{"x_bucket": Number, "y_bucket": Presumed, "u": Literal}},
		"quantile": {Values: []string{"1"}, Metrics: map[string]Meaning{"s": Number, "g": Literal}},
	}}
	verbatim = &Spellings{Verbatim: true}
	manyOdd  = &Spellings{Of: map[string]Spelling{"le": {Unlisted: true, Unnamed: true}}}
)

func TestSpellings_MatchersFindWhatIsShown(t *testing.T) {
	f := func(s *Spellings, selector, send, check string) {
		t.Helper()
		r := s.Resolve(Resolved{Send: parsed(t, selector)})
		require.Equal(t, send, transport.Selector(r.Send), selector)
		require.Equal(t, check, transport.Selector(r.Check), selector)
	}
	f(nil, `{le="1.0"}`, `{le="1.0"}`, `{}`)
	f(oddValues, `x_bucket{le="1.0"}`, `{le=~"1\\.0|1",__name__="x_bucket"}`, `{le="1.0"}`)
	f(oddValues, `x_bucket{le="1"}`, `{le="1",__name__="x_bucket"}`, `{le="1"}`)
	f(oddValues, `x_bucket{le="+Inf"}`, `{le="+Inf",__name__="x_bucket"}`, `{}`)
	f(oddValues, `x_bucket{le=~"1.*"}`, `{le=~"1.*",__name__="x_bucket"}`, `{le=~"1.*"}`)
	f(oddValues, `x_bucket{le=~"[12][.]0"}`, `{le=~"(?:[12][.]0)|1|2e0",__name__="x_bucket"}`, `{le=~"[12][.]0"}`)
	f(oddValues, `x_bucket{le!="1"}`, `{__name__="x_bucket"}`, `{le!="1"}`)
	f(oddValues, `x_bucket{le!~"1.*"}`, `{le!~"1.*",__name__="x_bucket"}`, `{le!~"1.*"}`)
	f(oddValues, `x_bucket{le!="",le=~"2[.]0"}`, `{le!="",le=~"(?:2[.]0)|2e0",__name__="x_bucket"}`, `{le!="",le=~"2[.]0"}`)
	f(oddValues, `u{le="1"}`, `{le="1",__name__="u"}`, `{}`)
	f(oddValues, `{le="10.0",quantile="1.0"}`, `{le=~"10\\.0|10",quantile=~"1\\.0|1"}`, `{le="10.0",quantile="1.0"}`)
	f(oddValues, `x_bucket{job="a"}`, `{job="a",__name__="x_bucket"}`, `{}`)
	f(verbatim, `x_bucket{le="1.0"}`, `{le=~"1\\.0|1",__name__="x_bucket"}`, `{le="1.0"}`)
	f(verbatim, `x_bucket{le="1e+06"}`, `{le=~"1e\\+06|1000000|1000000\\.0",__name__="x_bucket"}`, `{le="1e+06"}`)
	f(verbatim, `s{quantile="0.5"}`, `{quantile="0.5",__name__="s"}`, `{}`)
	f(verbatim, `{le=~"1|2.0"}`, `{le=~"1|2.0"}`, `{}`)
	f(manyOdd, `x_bucket{le="1.0"}`, `{__name__="x_bucket"}`, `{le="1.0"}`)
	f(manyOdd, `queue{le="1.0"}`, `{le="1.0",__name__="queue"}`, `{}`)
}

func TestSpellings_Concerns(t *testing.T) {
	f := func(s *Spellings, want bool, selectors ...string) {
		t.Helper()
		for _, selector := range selectors {
			require.Equal(t, want, s.Concerns(parsed(t, selector)), selector)
		}
	}
	f(nil, false, `x_bucket`)
	f(verbatim, false, `x_bucket`, `x_bucket{le="1.0"}`)
	f(oddValues, true, `x_bucket`, `x_bucket{le="1"}`, `x_bucket{le="1.0"}`, `{__name__=~"x.*"}`, `{job="a"}`, `y_bucket{le!="+Inf"}`, `s`, `{quantile="1"}`)
	f(oddValues, false, `up`, `x_bucket{le="+Inf"}`, `x_bucket{le="5.0"}`, `u`, `g{quantile="1"}`, `z_bucket`, `s{quantile="0.5"}`, `x_bucket{le="",quantile="2"}`)
	f(manyOdd, true, `x_bucket`, `a:b`, `{job="a"}`)
	f(manyOdd, false, `up`, `s`)
}

func TestRules_Respell(t *testing.T) {
	cfg := &config.Group{ReplicaLabels: []string{"replica"}}
	r := NewRules(cfg, nil).Respell(oddValues)
	f := func(want, replica string, raw ...string) {
		t.Helper()
		got, name := r.Apply(pairs(raw))
		require.Equal(t, want, got.String())
		require.Equal(t, replica, name)
	}
	f(`{__name__="x_bucket", le="1.0"}`, "\xfdle\xfe1\xff", "__name__", "x_bucket", "le", "1")
	f(`{__name__="x_bucket", le="2.0"}`, "\xfdle\xfe2e0\xff", "le", "2e0", "__name__", "x_bucket")
	f(`{__name__="x_bucket", le="1.0"}`, "", "__name__", "x_bucket", "le", "1.0")
	f(`{__name__="x_bucket", le="1.0"}`, "replica\xfea\xff\xfdle\xfe1\xff", "__name__", "x_bucket", "le", "1", "replica", "a")
	f(`{__name__="u", le="1"}`, "", "__name__", "u", "le", "1")
	f(`{__name__="s", le="x", quantile="1.0"}`, "\xfdquantile\xfe1\xff", "__name__", "s", "le", "x", "quantile", "1")
	f(`{le="1"}`, "", "le", "1")
	require.Empty(t, r.Unknown())
	require.Empty(t, r.PresumedNumbers())
	f(`{__name__="y_bucket", le="10.0"}`, "\xfdle\xfe10\xff", "__name__", "y_bucket", "le", "10")
	require.Len(t, r.PresumedNumbers(), 1)
	f(`{__name__="new_bucket", le="10"}`, "", "__name__", "new_bucket", "le", "10")
	f(`{__name__="x_bucket", le="7"}`, "", "__name__", "x_bucket", "le", "7")
	require.Len(t, r.Unknown(), 2)

	r = NewRules(cfg, nil)
	f(`{__name__="x_bucket", le="1"}`, "", "__name__", "x_bucket", "le", "1")
	r = NewRules(cfg, nil).Respell(nil)
	f(`{__name__="x_bucket", le="1"}`, "", "__name__", "x_bucket", "le", "1")
	require.Len(t, r.Unknown(), 1)
}
