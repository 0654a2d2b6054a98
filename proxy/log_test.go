package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/backendtest/fault"
)

// logBuffer is a log that can be read while it is written.
type logBuffer struct{ backendtest.Log }

// lines returns the lines that contain all of the texts.
func (b *logBuffer) lines(texts ...string) (out []string) {
	for line := range strings.Lines(b.String()) {
		all := true
		for _, text := range texts {
			all = all && strings.Contains(line, text)
		}
		if all {
			out = append(out, line)
		}
	}
	return out
}

// startLogging starts a server whose log can be read.
func startLogging(t *testing.T, level slog.Level, config, rules string) (*Server, *logBuffer) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "oneprom.yml")
	writeConfig(t, file, config)
	writeConfig(t, filepath.Join(dir, "rules.yml"), rules)
	log := &logBuffer{}
	o := options(t, "--config.file="+file, "--web.listen-address=127.0.0.1:0", "--storage.agent.path="+filepath.Join(dir, "agent"))
	o.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: level}))
	s, err := New(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Stop(context.Background())) })
	require.NoError(t, s.Start(t.Context()))
	return s, log
}

// Nobody has asked a query yet. A server that cannot be reached is named, once, and so is a rule that
// it stops, and a federation.
func TestLog_WhatIsDownIsSaidOnce(t *testing.T) {
	b := newRuleBackend(t)
	b.add(t, 0, 0, 1, "__name__", "m")
	require.NoError(t, b.Set(fault.Refuse()))
	s, log := startLogging(t, slog.LevelInfo, rulesConfig(nil, "", map[string]*ruleBackend{"a": b}), "groups: [{name: g, rules: [{alert: A, expr: m == 0}, {alert: B, expr: m == 2}]}]")
	eventually(t, "the server is named", func() bool { return len(log.lines("the server cannot be used", b.Addr(), "level=WARN")) == 1 })
	eventually(t, "rules fail again and again", func() bool { return metricOf(t, s, "prometheus_rule_evaluation_failures_total") > 10 })
	for range 3 {
		require.Equal(t, 503, get(s.Handler(), "/federate?match[]=m").Code)
	}
	require.Len(t, log.lines("the server cannot be used"), 1)
	require.Len(t, log.lines("federation failed"), 1)
	for _, rule := range []string{"A", "B"} {
		require.Len(t, log.lines("rule cannot be evaluated", "rule="+rule, "server group"), 1)
	}
	require.Empty(t, log.lines("Evaluating rule failed"))
	require.NoError(t, b.Set(fault.Fault{}))
	eventually(t, "it is said that all is well", func() bool {
		return len(log.lines("rule is evaluated again", "rule=A")) == 1 && len(log.lines("the server answers now")) == 1
	})
}

// At the level of debugging, the log says what was asked of whom, and what probes found.
func TestLog_Debug(t *testing.T) {
	b, other := newRuleBackend(t), newRuleBackend(t)
	b.add(t, 0, 0, 1, "__name__", "m")
	config := fmt.Sprintf("server_groups:\n  - {name: a, labels: {region: eu}, static_configs: [{targets: ['%s']}]}\n  - {name: b, labels: {region: us}, static_configs: [{targets: ['%s']}]}\n", b.Addr(), other.Addr())
	s, log := startLogging(t, slog.LevelDebug, config, "")
	require.Equal(t, 200, get(s.Handler(), `/api/v1/query?query=m{region="eu"}`).Code)
	require.NotEmpty(t, log.lines("level=DEBUG", "probe succeeded", b.Addr(), "prometheus"))
	require.NotEmpty(t, log.lines("level=DEBUG", "query planned"))
	require.NotEmpty(t, log.lines("level=DEBUG", "selector routed", "asked=a", `not_asked="b: `))
	require.NotEmpty(t, log.lines("level=DEBUG", "server asked", "group=a"))
}
