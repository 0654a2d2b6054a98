package servergroup

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/findings"
	"github.com/oneprom/oneprom/servergroup/replica"
)

// logOf collects a log.
type logOf struct{ backendtest.Log }

func (l *logOf) count(text string) int { return strings.Count(l.String(), text) }

func (l *logOf) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// loggedSet is a set whose log is kept, and whose clock stands at 60 s.
func loggedSet(t *testing.T, cfgs ...config.Group) (*Set, *clock, *logOf) {
	t.Helper()
	log, c := &logOf{}, &clock{}
	c.ms.Store(60_000)
	s, err := NewSet(Options{Now: c.now, Logger: log.logger()})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	require.NoError(t, s.Apply(t.Context(), cfgs, config.PartialWarn))
	return s, c, log
}

func TestFindings_OfAnswersAreToldForAnHour(t *testing.T) {
	s, c, log := loggedSet(t, recent(t, "a", twenty), recent(t, "b", twenty))
	for range 3 {
		warningsOf(t, s, "foo")
	}
	require.Len(t, findingsOf(s, "a"), 1)
	require.Equal(t, 2, log.count("hold the same series"), "once for each of the groups")
	require.Equal(t, 1, log.count("group=b"))
	c.ms.Add(findings.Age.Milliseconds())
	require.Len(t, findingsOf(s, "a"), 1)
	c.ms.Add(1)
	require.Empty(t, findingsOf(s, "a"))
	require.Empty(t, findingsOf(s, "b"))
}

// reprobe waits for a probe of the only replica of the first group, an age after the last.
func reprobe(s *Set, c *clock) {
	c.ms.Add(replica.ProfileAge.Milliseconds())
	<-firstReplica(s).Refresh()
}

func TestFindings_OfProbesAreLoggedOnce(t *testing.T) {
	cfg := groupOf("a", backend(t, twenty, external("region", "us")))
	cfg.Labels, cfg.ReplicaLabels, cfg.Kind = map[string]string{"region": "eu"}, []string{"nowhere"}, "mimir"
	s, c, log := loggedSet(t, cfg)
	ready(t, s)
	require.Equal(t, 2, log.count("level=WARN"), "a Mimir has no external labels")
	for range 3 {
		reprobe(s, c)
	}
	require.Equal(t, 2, log.count("level=WARN"))
	require.Equal(t, 1, log.count("nowhere"))
	require.Zero(t, log.count("a backend has changed"))
	require.Len(t, findingsOf(s, "a"), 2)
}

func TestFindings_OfProbesEndWithTheirReason(t *testing.T) {
	o := overridden(t, twenty)
	o.status = untold
	o.on.Store(false)
	cfg := groupOf("a", serve(t, o))
	cfg.Kind = "thanos"
	s, c, log := loggedSet(t, cfg)
	ready(t, s)
	require.Len(t, findingsOf(s, "a"), 1)
	o.on.Store(true) // it does not tell any more what it is
	reprobe(s, c)
	require.Empty(t, findingsOf(s, "a"))
	o.on.Store(false)
	reprobe(s, c)
	require.Len(t, findingsOf(s, "a"), 1)
	require.Equal(t, 2, log.count("msg=finding"), "that it is back is news")
}

func TestFindings_DifferentExternalLabelsAreLoggedOnce(t *testing.T) {
	s, _, log := loggedSet(t, groupOf("a", backend(t, twenty, external("dc", "x")), backend(t, twenty, external("dc", "y"))))
	ready(t, s)
	for range 3 {
		s.current.Load().groups()[0].refresh()
	}
	require.Equal(t, 1, log.count("external label dc is"))
	require.Equal(t, 1, log.count("level=WARN"))
}
