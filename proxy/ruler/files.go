package ruler

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/oneprom/oneprom/proxy/config"
	"github.com/oneprom/oneprom/proxy/readback"
)

// ruleFiles are the files of rules of one configuration, as they were read.
type ruleFiles struct {
	names  []string // sorted
	groups map[string]*rulefmt.RuleGroups
	// unmatched says which patterns no file matches.
	unmatched []string
}

// Checked is what a check of the files of rules of a configuration has found.
type Checked struct {
	Files, Rules int
	// Warnings are patterns that no file matches.
	Warnings []string
}

// Check says what is wrong with the files of rules that a configuration names, and with
// what it says of them, and what it hides of what they write.
func Check(cfg *config.Config, p parser.Parser) (c Checked, err error) {
	files, err := loadFiles(cfg, p)
	if err != nil {
		return c, err
	}
	c.Files, c.Warnings = len(files.names), files.unmatched
	for _, of := range files.groups {
		for _, g := range of.Groups {
			c.Rules += len(g.Rules)
		}
	}
	var errs []error
	for _, h := range readback.Configured(cfg, files.written(), time.Now()) {
		errs = append(errs, errors.New(cfg.At(h.Path...)+": "+h.Text))
	}
	return c, errors.Join(errs...)
}

// loadFiles reads the files that a configuration names. The error joins one error for
// each problem.
func loadFiles(cfg *config.Config, p parser.Parser) (*ruleFiles, error) {
	files := &ruleFiles{groups: map[string]*rulefmt.RuleGroups{}}
	names, unmatched, errs := expand(cfg)
	files.unmatched = unmatched
	known := map[string]bool{}
	for _, name := range names {
		groups, problems := parse(name, p)
		if len(problems) > 0 {
			errs = append(errs, problems...)
			continue
		}
		files.names, files.groups[name] = append(files.names, name), groups
		for _, g := range groups.Groups {
			known[g.Name] = true
			if recorded := recordedBy(g); recorded != "" && len(cfg.RemoteWrite) == 0 {
				errs = append(errs, fmt.Errorf("%s: group %q records %s, but there is nowhere to write it: add remote_write to the configuration, or leave the rule to the Prometheus servers", name, g.Name, recorded))
			}
		}
	}
	if len(errs) == 0 {
		for _, name := range slices.Sorted(maps.Keys(cfg.Rules.Groups)) {
			if !known[name] {
				errs = append(errs, fmt.Errorf("%s: no file of rule_files has such a group: remove it, or correct the name", cfg.At("rules", "groups", name)))
			}
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return files, nil
}

// expand returns the files that match the patterns of rule_files, sorted, and says which patterns none
// matches. What is no pattern has to be there.
func expand(cfg *config.Config) (names, unmatched []string, errs []error) {
	for i, pattern := range cfg.RuleFiles {
		at := cfg.At("rule_files", i)
		found, err := filepath.Glob(pattern)
		switch none := err == nil && len(found) == 0; {
		case none && strings.ContainsAny(pattern, `*?[\`):
			unmatched = append(unmatched, fmt.Sprintf("%s: there is no file %s", at, pattern))
		case none:
			_, err = os.Stat(pattern)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", at, err))
		}
		names = append(names, found...)
	}
	slices.Sort(names)
	return slices.Compact(names), unmatched, errs
}

// parse reads a file of rules. The problems have its name and, as far as upstream knows
// it, the place.
func parse(name string, p parser.Parser) (*rulefmt.RuleGroups, []error) {
	return rulefmt.ParseFile(name, false, model.UTF8Validation, p, slog.New(slog.DiscardHandler))
}

// recordedBy names the first series that a group records; "" if it has alerts only.
func recordedBy(g rulefmt.RuleGroup) string {
	for _, rule := range g.Rules {
		if rule.Record != "" {
			return rule.Record
		}
	}
	return ""
}

// loader gives the rule manager the files as they were prepared, so that it finds nothing
// wrong with them any more.
type loader struct{ *Ruler }

// Load implements rules.GroupLoader.
func (l *loader) Load(name string, _ bool, _ model.ValidationScheme) (*rulefmt.RuleGroups, []error) {
	if name == builtIn {
		return builtInRules(l.config.Load()), nil
	}
	if groups, ok := l.files.Load().groups[name]; ok {
		return groups, nil
	}
	return nil, []error{fmt.Errorf("%s was not prepared", name)}
}

// Parse implements rules.GroupLoader.
func (l *loader) Parse(expr string) (parser.Expr, error) { return l.opts.Parser.ParseExpr(expr) }

// written returns the names of the series that rules write.
func (f *ruleFiles) written() (names []string) {
	for _, file := range f.names {
		for _, g := range f.groups[file].Groups {
			for _, rule := range g.Rules {
				if rule.Record != "" {
					names = append(names, rule.Record)
				} else {
					names = append(names, "ALERTS", "ALERTS_FOR_STATE")
				}
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
