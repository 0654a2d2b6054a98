package servergroup

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/partition"
	"github.com/oneprom/oneprom/servergroup/request"
	"github.com/oneprom/oneprom/servergroup/view"
)

// selectedPiece fetches a piece of foo at a time, as text, with what is said of it.
func selectedPiece(t *testing.T, p *partition.Piece, at int64) (text string, said []string, err error) {
	t.Helper()
	var done sync.WaitGroup
	defer done.Wait()
	set := p.Select(t.Context(), view.Selection{Matchers: matchersOf(t, `foo{instance="b"}`), MinT: at, MaxT: at}, &done).Read()
	text = seriesText(t, set)
	return text, strs(set.Warnings()), set.Err()
}

// TestFailover: the replica that was to answer alone fails. The other one answers, and it is said if it
// was away itself then.
func TestFailover(t *testing.T) {
	a, b := newEvaluator(t, away), newEvaluator(t, there)
	s, _ := evidenceSet(t, 3*hour, a.Server, b.Server)
	pieces := chosen(t, s, false, 10*minute, hour)
	require.Equal(t, []string{"10-23 0", "24-40 1", "41-60 0"}, shownPieces(s, pieces))
	evidenceOf(t, s, "foo", 10*minute, hour) // nothing is under way any more by which it might be seen

	a.Close()
	var text string
	var said []string
	var err error
	require.Eventually(t, func() bool { // on a busy machine, a hedge may answer before the failure is known
		text, said, err = selectedPiece(t, pieces[0], 12*minute)
		return err != nil || len(said) > 0
	}, time.Minute, time.Millisecond)
	require.NoError(t, err)
	require.Equal(t, `{__name__="foo", instance="b", job="j"} 720:1`+"\n", text)
	require.Len(t, said, 1)
	require.Contains(t, said[0], `info: server group "g" answered without a replica: `+a.URL)

	// The other way round: what a has not seen, only b can tell.
	a, b = newEvaluator(t, away), newEvaluator(t, there)
	s, _ = evidenceSet(t, 3*hour, a.Server, b.Server)
	pieces = chosen(t, s, false, 10*minute, hour)
	strict := chosenFrom(t, s.View(request.With(t.Context(), func(r *request.Request) { r.Partial = config.PartialError })), "foo", false, 10*minute, hour)
	b.Close()
	text, said, err = selectedPiece(t, pieces[1], 30*minute)
	require.NoError(t, err)
	require.NotContains(t, text, ":1")
	require.Len(t, said, 1)
	require.Contains(t, said[0], `partial answer: server group "g" answered without a replica: `+b.URL)
	require.Contains(t, said[0], `, and the others have missed something`)

	_, _, err = selectedPiece(t, strict[1], 30*minute)
	var gone *completeness.UnavailableError
	require.ErrorAs(t, err, &gone)
	require.Contains(t, err.Error(), `, and the others have missed something`)
}
