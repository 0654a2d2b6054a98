package servergroup

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/backendtest/fault"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/lookup"
)

// A request that is under way when its group goes keeps its connection, but no longer than it needs
// it. It would else stay open for the five minutes that idle connections are kept: with many reloads,
// too many.
func TestApply_ConnectionsOfAGoneGroupEnd(t *testing.T) {
	p, err := fault.New(backendtest.NewHandler(backendtest.Options{Queryable: backendtest.Empty{}}))
	require.NoError(t, err)
	t.Cleanup(p.Close)
	s := newTestSet(t, config.PartialWarn, groupOf("a", &httptest.Server{URL: "http://" + p.Addr()}))
	v := s.View(t.Context())
	names := func() error {
		_, _, err := lookup.LabelNames(t.Context(), v, lookup.Lookup{MaxT: 1})
		return err
	}
	require.NoError(t, names())
	require.Positive(t, p.Open())

	require.NoError(t, p.Set(fault.Latency(100*time.Millisecond)))
	before := p.Requests()
	ended := make(chan error, 1)
	go func() { ended <- names() }()
	require.Eventually(t, func() bool { return p.Requests() > before }, time.Minute, time.Millisecond)
	require.NoError(t, s.Apply(t.Context(), nil, config.PartialWarn))
	require.NoError(t, <-ended)
	// A view of the gone group may still ask.
	require.NoError(t, names())
	require.Eventually(t, func() bool { return p.Open() == 0 }, time.Minute, time.Millisecond)
}
