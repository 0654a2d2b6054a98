package ruler

import (
	"bytes"
	"fmt"
	"log/slog"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/recorder"
)

// A rule whose samples are lost was evaluated nevertheless: the disk is to blame, and who has an
// alert of it knows whether it holds.
func TestFailed_LostSamples(t *testing.T) {
	expr, err := parser.NewParser(parser.Options{}).ParseExpr("up")
	require.NoError(t, err)
	rule := rules.NewRecordingRule("r", expr, labels.EmptyLabels())
	rule.SetHealth(rules.HealthBad)
	rule.SetLastError(fmt.Errorf("query timed out"))
	require.True(t, failed(rule))
	rule.SetLastError(fmt.Errorf("%w: no space left on device", recorder.ErrLost))
	require.False(t, failed(rule))
}

// What upstream says with each evaluation, the log has at the level of debugging only.
func TestQuietHandler(t *testing.T) {
	for level, want := range map[slog.Level]int{slog.LevelInfo: 1, slog.LevelDebug: 1 + len(repeated)} {
		var log bytes.Buffer
		logger := slog.New(quietHandler{slog.NewTextHandler(&log, &slog.HandlerOptions{Level: level})}).With("group", "g")
		for _, message := range repeated {
			logger.Warn(message) //nolint:sloglint // upstream's
		}
		logger.Warn("another warning")
		require.Equal(t, want, bytes.Count(log.Bytes(), []byte("\n")), log.String())
		require.Equal(t, 1, bytes.Count(log.Bytes(), []byte("level=WARN")), log.String())
	}
}
