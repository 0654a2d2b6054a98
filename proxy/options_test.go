package proxy

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
)

func TestAddFlags_DefaultsAreThoseOfPrometheus(t *testing.T) {
	o := options(t)
	require.NoError(t, o.validate())
	want := map[string]string{
		"config.file": "oneprom.yml", "web.listen-address": "0.0.0.0:9090", "web.read-timeout": "5m", "web.write-timeout": "1m", "web.max-unread-bytes": "128MiB", "web.max-connections": "512",
		"web.enable-lifecycle": "false", "web.cors.origin": ".*", "query.timeout": "2m", "query.max-samples": "50000000",
		"query.lookback-delta": "5m", "query.max-concurrency": "20", "query.max-fetched-bytes": "1GiB",
		"query.max-concurrency-per-client": "0", "query.queue-timeout": "10s", "query.max-queued": "1000", "query.client-header": "", "query.max-region-concurrency": "100", "audit.share": "0.005",
		"storage.remote.read-sample-limit": "50000000", "storage.remote.read-concurrent-limit": "10",
		"storage.remote.read-max-bytes-in-frame": "1048576",
	}
	for name, value := range want {
		require.Equal(t, value, o.Flags[name], name)
	}
	require.NotContains(t, o.Flags, "help")
	require.NotContains(t, o.Flags, "version")
}

func TestBytes(t *testing.T) {
	for text, want := range map[string]Bytes{"0": 0, "1000": 1000, "1KiB": 1024, "2MB": 2 << 20, "1GiB": 1 << 30} {
		var b Bytes
		require.NoError(t, b.Set(text))
		require.Equal(t, want, b, text)
	}
	var b Bytes
	require.ErrorContains(t, b.Set("many"), `"many" is not a number of bytes`)
}

func TestOptions_RefusedAllAtOnce(t *testing.T) {
	flags := []string{
		"--query.timeout=0s", "--query.max-concurrency=0", "--web.max-connections=-1",
		"--query.max-concurrency-per-client=-1", "--query.queue-timeout=0s", "--query.max-queued=-1", "--query.max-region-concurrency=-1", "--audit.share=1.5",
	}
	o := options(t, flags...)
	err := o.validate()
	for _, text := range flags {
		require.ErrorContains(t, err, text)
	}
	require.NotContains(t, err.Error(), "--query.max-samples")
	o = options(t, "--audit.share=NaN")
	require.ErrorContains(t, o.validate(), "--audit.share=NaN")
}

func TestParseFeatures(t *testing.T) {
	base := features{parser: parser.Options{ExperimentalDurationExpr: true}}
	f := func(lists []string, change func(*features), warned string) {
		t.Helper()
		var log bytes.Buffer
		want := base
		change(&want)
		got := parseFeatures(lists, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn})))
		for _, name := range got.names {
			require.Contains(t, strings.Join(lists, ","), name)
		}
		got.names = nil
		require.Equal(t, want, got)
		require.Equal(t, warned == "", log.Len() == 0, log.String())
		require.Contains(t, log.String(), warned)
	}
	f(nil, func(*features) {}, "")
	f([]string{"promql-experimental-functions"}, func(f *features) { f.parser.EnableExperimentalFunctions = true }, "")
	f([]string{"promql-extended-range-selectors"}, func(f *features) { f.parser.EnableExtendedRangeSelectors = true }, "")
	f([]string{"promql-binop-fill-modifiers"}, func(f *features) { f.parser.EnableBinopFillModifiers = true }, "")
	f([]string{"promql-delayed-name-removal"}, func(f *features) { f.delayedNameRemoval = true }, "")
	f([]string{"promql-per-step-stats"}, func(f *features) { f.perStepStats = true }, "")
	f([]string{"use-start-timestamps"}, func(f *features) { f.startTimestamps = true }, "")
	f([]string{"type-and-unit-labels"}, func(f *features) { f.typeAndUnitLabels = true }, "")
	f([]string{"promql-duration-expr"}, func(*features) {}, "always on")
	f([]string{"promql-experimental-function"}, func(*features) {}, "known are: "+featureNames())
	f([]string{"promql-per-step-stats,use-start-timestamps", "type-and-unit-labels"}, func(f *features) {
		f.perStepStats, f.startTimestamps, f.typeAndUnitLabels = true, true, true
	}, "")
	require.Equal(t, []string{"type-and-unit-labels", "use-start-timestamps"},
		parseFeatures([]string{"x,type-and-unit-labels", "use-start-timestamps"}, slog.New(slog.DiscardHandler)).names)
	f([]string{"search-api"}, func(f *features) { f.search = true }, "")
	require.Len(t, strings.Split(featureNames(), ", "), 10)
	require.Empty(t, parseFeatures([]string{"search-api"}, slog.New(slog.DiscardHandler)).names, "servers that lack it evaluate the same")
}

func TestFeatures_ReachEngine(t *testing.T) {
	s, _ := newServer(t, oneGroup, "--enable-feature=promql-experimental-functions,promql-delayed-name-removal", "--query.max-samples=7")
	o := engineOptions(s.opts, s.features, s.config.Load)
	require.True(t, o.EnableDelayedNameRemoval)
	require.True(t, o.EnableAtModifier)
	require.True(t, o.EnableNegativeOffset)
	require.False(t, o.EnablePerStepStats)
	require.Equal(t, 7, o.MaxSamples)
	require.Equal(t, int64(60_000), o.NoStepSubqueryIntervalFn(0))
	_, err := o.Parser.ParseExpr("mad_over_time(m[1m])")
	require.NoError(t, err)
	_, err = o.Parser.ParseExpr("m + fill(0) m")
	require.Error(t, err)
}
