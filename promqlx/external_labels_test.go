package promqlx

import (
	"net/http"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/promqltest"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/config"
)

// TestExecute_ExternalLabelsThatChange on one replica first make no second series of any.
func TestExecute_ExternalLabelsThatChange(t *testing.T) {
	const whole = "\n up{job=\"api\",instance=\"1\"} 1x240\n foo{job=\"api\",instance=\"1\"} 0+1x240\n up{job=\"api\",instance=\"2\"} 1x240\n foo{job=\"api\",instance=\"2\"} 0+2x240"
	const holes = "\n up{job=\"api\",instance=\"1\"} 1x100 _x20 1x120\n foo{job=\"api\",instance=\"1\"} 0+1x100 _x20 121+1x119\n up{job=\"api\",instance=\"2\"} 1x240\n foo{job=\"api\",instance=\"2\"} 0+2x240"
	reload := func(s *store, load string, external ...string) {
		h := http.HandlerFunc(backendtest.NewHandler(backendtest.Options{
			Queryable: promqltest.LoadedStorage(t, "load 15s"+load), EarlyNames: true, ExternalLabels: labels.FromStrings(external...),
		}).ServeHTTP)
		s.all.Store(&h)
	}
	reference := truthOf(t, whole)
	for _, change := range []func(*config.Group){func(*config.Group) {}, pushdownOff, mergeAll} {
		a, b := newStore(t, holes), newStore(t, whole)
		cfg := groupAt("eu", nil, a, b)
		cfg.ReplicaLabels = []string{"replica"}
		change(&cfg)
		e := engineOver(t, config.PartialError, cfg)
		require := func() {
			t.Helper()
			for _, text := range []string{`sum(rate(foo[5m]))`, `count(foo)`, `sum by (cluster) (foo)`, `count without (instance) ({job="api"})`, `foo`, `count(up)`} {
				requireTruth(t, e, reference, text, at(0, 60))
				requireTruth(t, e, reference, text, instantAt(27))
			}
		}
		require()
		for _, external := range [][]string{{"replica", "a", "cluster", "c1"}, {"cluster", "c2"}, {}} {
			reload(a, holes, external...)
			require()
			reload(b, whole, external...)
			require()
		}
	}
}
