package readback

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"net/url"
	"testing"
	"time"

	commoncfg "github.com/prometheus/common/config"
	upstream "github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/config"
	groupconfig "github.com/oneprom/oneprom/servergroup/config"
)

// groups are the server groups: what they have, or why they do not answer.
type groups struct {
	storage.Storage
	warning error
	asked   int
}

func (g *groups) Querier(from, to int64) (storage.Querier, error) {
	g.asked++
	if g.warning != nil {
		return &missing{storage.NoopQuerier(), g.warning}, nil
	}
	return g.Storage.Querier(from, to)
}

type missing struct {
	storage.Querier
	warning error
}

func (m *missing) Select(context.Context, bool, *storage.SelectHints, ...*labels.Matcher) storage.SeriesSet {
	return storage.ErrSeriesSet(m.warning)
}

// write appends a sample of a series as the rules of a group do.
func write(t *testing.T, c *Confirmations, g *rules.Group, into storage.Storage, at time.Time, v float64, series ...string) {
	t.Helper()
	app := c.Appender(into.Appender(t.Context()), g)
	_, err := app.Append(0, labels.FromStrings(series...), at.UnixMilli(), v)
	require.NoError(t, err)
	require.NoError(t, app.Commit())
}

// TestConfirmations: a sample that rules have written is looked for until a server group has it. It is
// a finding if none does five minutes later, and not while server groups do not answer.
func TestConfirmations(t *testing.T) {
	receiver, err := url.Parse("http://elsewhere:9090/api/v1/write")
	require.NoError(t, err)
	cfg := &config.Config{
		ServerGroups: []groupconfig.Group{{Name: "a"}, {Name: "b"}},
		RemoteWrite:  []*upstream.RemoteWriteConfig{{URL: &commoncfg.URL{URL: receiver}}},
	}
	cfg.Global.ExternalLabels = labels.FromStrings("source", "oneprom", "zone", "z")
	elsewhere, there := promqltest.LoadedStorage(t, ""), &groups{Storage: promqltest.LoadedStorage(t, "")}
	var log bytes.Buffer
	c := NewConfirmations(there, func() *config.Config { return cfg }, slog.New(slog.NewTextHandler(&log, nil)))
	g := rules.NewGroup(rules.GroupOptions{Name: "g", File: "f", Opts: &rules.ManagerOptions{}})
	start := time.UnixMilli(600_000)
	after := func(d time.Duration) []Hidden {
		c.Confirm(t.Context(), g, start.Add(d))
		return c.Hidden()
	}

	write(t, c, g, elsewhere, start, 1, "__name__", "a:b", "zone", "own")
	require.Empty(t, after(59*time.Second))
	require.Zero(t, there.asked, "a receiver has a minute")
	require.Empty(t, after(time.Minute))
	require.Empty(t, after(119*time.Second))
	require.Equal(t, 1, there.asked, "once in a minute")
	there.warning = errors.New("a is away")
	require.Empty(t, after(6*time.Minute))
	there.warning = nil

	found := after(7 * time.Minute)
	require.Len(t, found, 1)
	require.Equal(t, []string{"a", "b"}, found[0].Groups, "any of them may be meant")
	require.Contains(t, found[0].String(), `remote_write: rules have written {__name__="a:b", source="oneprom", zone="own"} at 1970-01-01T00:10:00Z, and no server group has it 5m0s later`)
	require.Len(t, after(8*time.Minute), 1)
	require.Equal(t, 1, bytes.Count(log.Bytes(), []byte("finding=")), log.String())

	app := there.Appender(t.Context())
	_, err = app.Append(0, labels.FromStrings("__name__", "a:b", "source", "oneprom", "zone", "own", "replica", "x"), start.UnixMilli(), 1)
	require.NoError(t, err)
	require.NoError(t, app.Commit())
	require.Empty(t, after(9*time.Minute))
	asked := there.asked
	require.Empty(t, after(time.Hour))
	require.Equal(t, asked, there.asked, "once is enough")

	// A reload asks again; the end of a series, and what is not known to be written, is not looked for.
	c.Anew()
	write(t, c, g, elsewhere, start, math.Float64frombits(value.StaleNaN), "__name__", "a:c")
	require.Empty(t, after(time.Hour))
	write(t, c, g, elsewhere, start.Add(time.Minute), 1, "__name__", "a:d")
	cfg.RemoteWrite[0].WriteRelabelConfigs = []*relabel.Config{{Action: relabel.Replace}}
	require.Empty(t, after(time.Hour))
	require.Equal(t, asked, there.asked)
	cfg.RemoteWrite[0].WriteRelabelConfigs = nil
	require.Len(t, after(time.Hour), 1)
}

// TestConfirmations_Warnings: what a server group says beside an answer is no answer.
func TestConfirmations_Warnings(t *testing.T) {
	_, err := readable(t.Context(), warned{}, labels.FromStrings("a", "b"), time.UnixMilli(0), time.UnixMilli(1))
	require.EqualError(t, err, "b is away")
}

type warned struct{}

func (warned) Querier(_, _ int64) (storage.Querier, error) {
	return &saying{storage.NoopQuerier()}, nil
}

type saying struct{ storage.Querier }

func (s *saying) Select(context.Context, bool, *storage.SelectHints, ...*labels.Matcher) storage.SeriesSet {
	return &set{storage.EmptySeriesSet()}
}

type set struct{ storage.SeriesSet }

func (*set) Warnings() annotations.Annotations {
	return annotations.New().Add(errors.New("b is away"))
}
