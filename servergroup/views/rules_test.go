package views

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	v1 "github.com/prometheus/prometheus/web/api/v1"
	"github.com/stretchr/testify/require"
)

// groupsOf reads rule groups as a server writes them.
func groupsOf(t *testing.T, text string) []RuleGroup {
	t.Helper()
	var groups []RuleGroup
	require.NoError(t, json.Unmarshal([]byte(text), &groups), text)
	return groups
}

// alertRule is the JSON of an alerting rule with alerts, evaluated so many seconds after
// noon.
func alertRule(name, state string, second int, alerts ...string) string {
	return fmt.Sprintf(`{"type":"alerting","name":%q,"query":"up == 0","duration":60,"labels":{"severity":"page"},"annotations":{"by":%q},`+
		`"state":%q,"health":"ok","evaluationTime":0.%d,"lastEvaluation":"2026-01-01T12:00:%02dZ","alerts":[%s]}`,
		name, state, state, second+1, second, strings.Join(alerts, ","))
}

// alertOf is the JSON of an alert that became active so many minutes after noon.
func alertOf(instance, state string, minute int) string {
	return fmt.Sprintf(`{"labels":{"alertname":"Down","instance":%q},"annotations":{},"state":%q,"value":"%de+00","activeAt":"2026-01-01T12:%02d:00Z"}`, instance, state, minute, minute)
}

func ruleGroup(file, name string, rules ...string) string {
	return fmt.Sprintf(`[{"file":%q,"name":%q,"interval":15,"limit":3,"evaluationTime":0.5,"lastEvaluation":"2026-01-01T12:00:00Z","rules":[%s]}]`, file, name, strings.Join(rules, ","))
}

// inShort writes what the merge decides of rule groups.
func inShort(groups []RuleGroup) string {
	var b strings.Builder
	for _, g := range groups {
		fmt.Fprintf(&b, "%s %s\n", g.File, g.Name)
		for _, r := range g.Rules {
			fmt.Fprintf(&b, "  %s %s", r.Type, r.Name)
			r.Labels.Range(func(l labels.Label) { fmt.Fprintf(&b, " %s=%s", l.Name, l.Value) })
			fmt.Fprintf(&b, " %s by %s, %s %q, %s\n", r.State, r.Annotations.Get("by"), r.Health, r.LastError, r.LastEvaluation.Format("05"))
			b.WriteString(alertsInShort(r.Alerts))
		}
	}
	return b.String()
}

func alertsInShort(alerts []*v1.Alert) string {
	var b strings.Builder
	for _, a := range alerts {
		fmt.Fprintf(&b, "    %s %s %s since %s\n", a.Labels.Get("instance"), a.State, a.Value, a.ActiveAt.Format("04"))
	}
	return b.String()
}

func TestMergeRules_TwinsDisagree(t *testing.T) {
	f := func(a, b, want string) {
		t.Helper()
		for _, lists := range [][2]string{{a, b}, {b, a}} {
			got := MergeRules(groupsOf(t, ruleGroup("f", "g", lists[0])), groupsOf(t, ruleGroup("f", "g", lists[1])))
			require.Equal(t, "f g\n"+want, inShort(got))
		}
	}
	// Firing at one of them is firing, also if the other was evaluated later.
	f(alertRule("Down", "firing", 1, alertOf("a", "firing", 5)), alertRule("Down", "pending", 9, alertOf("a", "pending", 3), alertOf("b", "pending", 7)),
		"  alerting Down severity=page firing by firing, ok \"\", 09\n    a firing 5e+00 since 03\n    b pending 7e+00 since 07\n")
	f(alertRule("Down", "pending", 1, alertOf("a", "pending", 5)), alertRule("Down", "inactive", 9),
		"  alerting Down severity=page pending by pending, ok \"\", 09\n    a pending 5e+00 since 05\n")
	f(alertRule("Down", "inactive", 1), strings.Replace(alertRule("Down", "inactive", 9), `"by":"inactive"`, `"by":"later"`, 1),
		"  alerting Down severity=page inactive by later, ok \"\", 09\n")
	f(alertRule("Down", "inactive", 1), alertRule("Down", "unknown", 9), "  alerting Down severity=page inactive by inactive, ok \"\", 09\n")

	// Of health the worst is told; that one was not evaluated yet is not worse.
	failing := strings.Replace(alertRule("Down", "inactive", 1), `"health":"ok"`, `"health":"err","lastError":"no"`, 1)
	f(failing, alertRule("Down", "firing", 9), "  alerting Down severity=page firing by firing, err \"no\", 09\n")
	f(strings.Replace(failing, `"err"`, `"unknown"`, 1), alertRule("Down", "inactive", 9), "  alerting Down severity=page inactive by inactive, ok \"\", 09\n")
}

func TestMergeRules_WhatIsOneRule(t *testing.T) {
	rule := alertRule("Down", "inactive", 1)
	f := func(a, b string, rules int) {
		t.Helper()
		got := MergeRules(groupsOf(t, ruleGroup("f", "g", a)), groupsOf(t, ruleGroup("f", "g", b)))
		require.Len(t, got, 1)
		require.Len(t, got[0].Rules, rules)
	}
	f(rule, rule, 1)
	f(rule, strings.Replace(rule, `"by":"inactive"`, `"by":"x"`, 1), 1)
	f(rule, strings.Replace(rule, `"Down"`, `"Up"`, 1), 2)
	f(rule, strings.Replace(rule, `up == 0`, `up == 1`, 1), 2)
	f(rule, strings.Replace(rule, `"page"`, `"mail"`, 1), 2)
	f(rule, strings.Replace(rule, `"duration":60`, `"duration":61`, 1), 2)
	f(rule, strings.Replace(rule, `"alerting"`, `"recording"`, 1), 2)
	// A server that has a rule twice has it twice, and so has its twin.
	f(rule+","+rule, rule+","+rule, 2)
	f(rule+","+rule, rule, 2)
	// What is neither is not shown.
	f(rule, strings.Replace(rule, `"alerting"`, `"joking"`, 1), 1)
	f(rule, `null`, 1)
}

func TestMergeRules_GroupsAreKnownByFileAndName(t *testing.T) {
	eu := groupsOf(t, `[
		{"file":"z","name":"a","interval":15,"limit":1,"evaluationTime":0.5,"lastEvaluation":"2026-01-01T12:00:00Z","rules":[
			{"type":"recording","name":"r2","query":"1","labels":{"region":"eu"}},{"type":"recording","name":"r1","query":"1","labels":{"region":"eu"}}]},
		{"file":"a","name":"z","rules":[{"type":"recording","name":"r","query":"1"}]}]`)
	us := groupsOf(t, `[
		{"file":"z","name":"a","interval":30,"limit":2,"evaluationTime":0.7,"lastEvaluation":"2026-01-01T12:00:01Z","rules":[
			{"type":"recording","name":"r1","query":"1","labels":{"region":"us"}}]},
		{"file":"a","name":"b","rules":[{"type":"recording","name":"r","query":"1"}]}]`)
	got := MergeRules(eu, us)
	require.Equal(t, "a b\n  recording r  by ,  \"\", 00\n"+
		"a z\n  recording r  by ,  \"\", 00\n"+
		"z a\n  recording r2 region=eu  by ,  \"\", 00\n  recording r1 region=eu  by ,  \"\", 00\n  recording r1 region=us  by ,  \"\", 00\n", inShort(got))
	require.Equal(t, v1.RuleGroup{File: "z", Name: "a", Interval: 15, Limit: 1, EvaluationTime: 0.7, LastEvaluation: time.Date(2026, 1, 1, 12, 0, 1, 0, time.UTC)}, got[2].RuleGroup)
	require.Equal(t, []RuleGroup{}, MergeRules())
	require.Equal(t, []RuleGroup{}, MergeRules(nil, nil))
}

func TestMergeAlerts(t *testing.T) {
	f := func(want string, servers ...string) {
		t.Helper()
		var lists [][]*v1.Alert
		for _, text := range servers {
			var list []*v1.Alert
			require.NoError(t, json.Unmarshal([]byte("["+text+"]"), &list))
			lists = append(lists, list)
		}
		require.Equal(t, want, alertsInShort(MergeAlerts(lists...)))
	}
	f("")
	f("    a firing 2e+00 since 02\n    b pending 1e+00 since 01\n", alertOf("b", "pending", 1), "null,"+alertOf("a", "firing", 2))
	f("    a firing 2e+00 since 01\n", alertOf("a", "pending", 1), alertOf("a", "firing", 2))
	f("    a firing 2e+00 since 01\n", alertOf("a", "firing", 2), alertOf("a", "pending", 1))
	require.NotNil(t, MergeAlerts(nil))
	// One that does not say since when it is active does not hide when the other is.
	var silent []*v1.Alert
	require.NoError(t, json.Unmarshal([]byte(`[{"labels":{"alertname":"Down","instance":"a"},"state":"firing","value":"1e+00"}]`), &silent))
	var known []*v1.Alert
	require.NoError(t, json.Unmarshal([]byte("["+alertOf("a", "firing", 4)+"]"), &known))
	require.Equal(t, "    a firing 1e+00 since 04\n", alertsInShort(MergeAlerts(silent, known)))
}
