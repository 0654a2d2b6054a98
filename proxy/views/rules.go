package views

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/oneprom/oneprom/proxy/api"
	"github.com/oneprom/oneprom/servergroup/views"
)

// Rules is /rules: oneprom's own and those of the servers, merged as views.MergeRules says.
// What the parameters select, they select of the merged list, and the token is one of it.
func (m Merged) Rules(r *http.Request) (api.Result, error) {
	f, err := m.ruleFilter(r)
	if err != nil {
		return api.Result{}, err
	}
	var self struct {
		Groups []views.RuleGroup `json:"groups"`
	}
	if err := m.Self.ask(r, "/rules", "", &self); err != nil {
		return api.Result{}, err
	}
	servers := m.servers(r)
	theirs, ws, err := servers.Rules(r.Context(), f.withoutAlerts)
	if err != nil {
		return api.Result{}, err
	}
	data, err := f.page(views.MergeRules(servers.ShownRules(self.Groups), theirs))
	return api.Result{Data: data, Warnings: ws}, err
}

// ruleFilter is which rules a request asks for.
type ruleFilter struct {
	files, groups, names []string // none is all
	matchers             [][]*labels.Matcher
	kind                 string // "alerting", "recording", or "" for both
	withoutAlerts        bool
	limit                int    // of groups; 0 for all
	token                string // of the group that the page begins with
}

// ruleFilter reads the parameters of a request. Grafana sends some without brackets, too,
// as Mimir wants them.
func (m Merged) ruleFilter(r *http.Request) (f ruleFilter, err error) {
	if err := m.Self.ask(r, "/rules", withoutToken(r.URL), new(v1.RuleDiscovery)); err != nil {
		return f, err
	}
	params := r.URL.Query()
	f.files = slices.Concat(params["file[]"], params["file"])
	f.groups = slices.Concat(params["rule_group[]"], params["rule_group"])
	f.names = slices.Concat(params["rule_name[]"], params["rule_name"])
	if f.matchers, err = m.Parser.ParseMetricSelectors(params["match[]"]); err != nil {
		return f, api.BadData(err)
	}
	switch strings.ToLower(params.Get("type")) {
	case "alert":
		f.kind = "alerting"
	case "record":
		f.kind = "recording"
	}
	// What does not parse is refused above, or empty.
	f.withoutAlerts, _ = strconv.ParseBool(strings.ToLower(params.Get("exclude_alerts")))
	f.limit, _ = strconv.Atoi(params.Get("group_limit"))
	f.token = params.Get("group_next_token")
	return f, nil
}

// withoutToken returns the parameters of a request for upstream to judge, but for a token:
// that is of the merged list.
func withoutToken(u *url.URL) string {
	params := u.Query()
	if !params.Has("group_next_token") || !params.Has("group_limit") {
		return u.RawQuery
	}
	params.Del("group_next_token")
	return params.Encode()
}

// page is what is shown of all groups. Groups without a rule that is asked for are not.
func (f ruleFilter) page(all []views.RuleGroup) (*v1.RuleDiscovery, error) {
	if f.token != "" {
		first := slices.IndexFunc(all, func(g views.RuleGroup) bool { return tokenOf(g) == f.token })
		if first < 0 {
			return nil, api.BadParameter("group_next_token", fmt.Errorf("invalid group_next_token '%v'. were rule groups changed?", f.token))
		}
		all = all[first:]
	}
	page := &v1.RuleDiscovery{RuleGroups: []*v1.RuleGroup{}}
	for _, g := range all {
		if !wanted(f.files, g.File) || !wanted(f.groups, g.Name) {
			continue
		}
		shown := g.RuleGroup
		shown.Rules = f.rules(g.Rules)
		if len(shown.Rules) == 0 {
			continue
		}
		if f.limit > 0 && len(page.RuleGroups) == f.limit {
			page.GroupNextToken = tokenOf(g)
			break
		}
		page.RuleGroups = append(page.RuleGroups, &shown)
	}
	return page, nil
}

// rules returns the rules of a group that are asked for, as upstream shows their types.
func (f ruleFilter) rules(all []v1.AlertingRule) []v1.Rule {
	var shown []v1.Rule
	for _, r := range all {
		if !wanted(f.names, r.Name) || f.kind != "" && f.kind != r.Type || !f.matches(r.Labels) {
			continue
		}
		switch {
		case r.Type == "recording":
			shown = append(shown, v1.RecordingRule{
				Name: r.Name, Query: r.Query, Labels: r.Labels, Health: r.Health, LastError: r.LastError,
				EvaluationTime: r.EvaluationTime, LastEvaluation: r.LastEvaluation, Type: r.Type,
			})
			continue
		case f.withoutAlerts:
			r.Alerts = nil
		case r.Alerts == nil:
			r.Alerts = []*v1.Alert{}
		}
		shown = append(shown, r)
	}
	return shown
}

// matches reports whether a rule's labels satisfy one of the selectors, if there are any.
func (f ruleFilter) matches(ls labels.Labels) bool {
	return len(f.matchers) == 0 || slices.ContainsFunc(f.matchers, func(ms []*labels.Matcher) bool {
		return !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches(ls.Get(m.Name)) })
	})
}

// wanted reports whether a value is among those asked for, if any are.
func wanted(list []string, value string) bool { return len(list) == 0 || slices.Contains(list, value) }

// tokenOf is upstream's token for the page that begins with a group.
func tokenOf(g views.RuleGroup) string {
	sum := sha256.Sum256([]byte(g.File + ";" + g.Name))
	return hex.EncodeToString(sum[:])
}
