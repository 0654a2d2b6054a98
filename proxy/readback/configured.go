// Package readback says whether what rules write can be read back through the server groups: by the
// configuration, and by looking for it.
package readback

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	upstream "github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"

	"github.com/oneprom/oneprom/proxy/config"
	groupconfig "github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/targets"
)

// Hidden says that what rules write cannot be read back, or not at once, through some server groups,
// the only ones that may have it.
type Hidden struct {
	Groups []string
	Path   groupconfig.Path // of the remote_write that writes it
	Text   string
}

func (h Hidden) String() string { return h.Path.String() + ": " + h.Text }

// Configured returns what a configuration hides of the series with these names, one for each remote_write: the
// receiver is a server group that is not asked for young samples, or only for copies of others', and its
// `holds` does not say that it alone has them.
func Configured(cfg *config.Config, names []string, now time.Time) []Hidden {
	if len(names) == 0 {
		return nil
	}
	var out []Hidden
	for i, rw := range cfg.RemoteWrite {
		if changesLabels(rw) {
			continue // what is written cannot be told
		}
		receivers := receiversOf(cfg, rw)
		at := slices.IndexFunc(names, func(name string) bool {
			return !slices.ContainsFunc(receivers, func(g *groupconfig.Group) bool { return shows(g, writtenAs(cfg, name), now) })
		})
		if at < 0 {
			continue
		}
		h := Hidden{Path: groupconfig.Path{"remote_write", i}}
		var quoted []string
		because := "time_range"
		for _, g := range receivers {
			if len(g.CopiesOf) > 0 {
				because = "copies_of"
			}
			h.Groups = append(h.Groups, g.Name)
			quoted = append(quoted, fmt.Sprintf("%q", g.Name))
		}
		h.Text = fmt.Sprintf("rules write %s, but server group %s is not asked for samples that young, because of its %s: %s",
			names[at], strings.Join(quoted, ", "), because, remedy(cfg))
		out = append(out, h)
	}
	return out
}

// remedy says what to do about samples that are hidden.
func remedy(cfg *config.Config) string {
	first := ""
	cfg.Global.ExternalLabels.Range(func(l labels.Label) {
		if first == "" {
			first = fmt.Sprintf("{%s=%q}", l.Name, l.Value)
		}
	})
	if first == "" {
		return `add a label to them, as by global.external_labels: {source: oneprom}, and holds: ['{source="oneprom"}'] to that group`
	}
	return fmt.Sprintf("add holds: ['%s'] to that group, if no other one has series with that label", first)
}

// writtenAs returns a selector of the series of a name that rules write.
func writtenAs(cfg *config.Config, name string) []*labels.Matcher {
	ms := []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, name)}
	cfg.Global.ExternalLabels.Range(func(l labels.Label) {
		ms = append(ms, labels.MustNewMatcher(labels.MatchEqual, l.Name, l.Value))
	})
	return ms
}

// changesLabels reports whether what is written may have other labels than it was given.
func changesLabels(rw *upstream.RemoteWriteConfig) bool {
	return slices.ContainsFunc(rw.WriteRelabelConfigs, func(c *relabel.Config) bool {
		return c.Action != relabel.Keep && c.Action != relabel.Drop
	})
}

// receiversOf returns the groups that may have what is written: those with a target at the receiver's
// address, or else at its host; all groups if there are none.
func receiversOf(cfg *config.Config, rw *upstream.RemoteWriteConfig) []*groupconfig.Group {
	var all, sameHost, same []*groupconfig.Group
	for i := range cfg.ServerGroups {
		g := &cfg.ServerGroups[i]
		all = append(all, g)
		host, address := false, false
		for _, t := range targets.StaticTargets(g) {
			u, err := url.Parse(t.URL)
			if err != nil || rw.URL == nil {
				continue
			}
			host = host || u.Hostname() == rw.URL.Hostname()
			address = address || addressOf(u) == addressOf(rw.URL.URL)
		}
		if address {
			same = append(same, g)
		}
		if host {
			sameHost = append(sameHost, g)
		}
	}
	for _, list := range [][]*groupconfig.Group{same, sameHost} {
		if len(list) > 0 {
			return list
		}
	}
	return all
}

// addressOf returns the host and port of a URL.
func addressOf(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// shows reports whether a group is asked for the youngest samples of series that match.
func shows(g *groupconfig.Group, ms []*labels.Matcher, now time.Time) bool {
	for _, portion := range g.Portions(false) {
		held := portion.Portion != nil && portion.Portion.Held
		if _, hi := portion.TimeRange.Bounds(now); hi < now.UnixMilli() || len(portion.CopiesOf) > 0 && !held {
			continue
		}
		if !held || labelmap.Within(ms, portion.Only()) {
			return true
		}
	}
	return false
}
