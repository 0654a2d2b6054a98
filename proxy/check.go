package proxy

import (
	"errors"
	"fmt"
	"io"
	"log/slog"

	commoncfg "github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/oneprom/oneprom/promqlx/bounds"
	"github.com/oneprom/oneprom/promqlx/metricsql"
	"github.com/oneprom/oneprom/proxy/config"
	"github.com/oneprom/oneprom/proxy/ruler"
)

// CheckConfig says what is wrong with a configuration file and the files that it names, and what the
// configuration hides of what rules write. With syntaxOnly it looks at no other file. What is right is
// printed, as promtool does.
func CheckConfig(o Options, w io.Writer, file string, syntaxOnly bool) error {
	fmt.Fprintln(w, "Checking", file)
	cfg, err := config.Load(file)
	if err != nil {
		return err
	}
	groups := len(cfg.ServerGroups)
	if syntaxOnly {
		fmt.Fprintf(w, "  SUCCESS: the syntax is valid: %s\n", counted(groups, "entry of server_groups", "entries of server_groups"))
		return nil
	}
	warnings, missing := config.CheckFiles(file)
	rules, err := ruler.Check(cfg, parserOf(o))
	for _, text := range append(warnings, rules.Warnings...) {
		fmt.Fprintln(w, "  WARNING:", text)
	}
	if missing == nil { // else these would be said twice
		missing = checkTLS(cfg)
	}
	if err := errors.Join(missing, err); err != nil {
		return err
	}
	fmt.Fprintf(w, "  SUCCESS: %s, %s in %s\n", counted(groups, "entry of server_groups", "entries of server_groups"), counted(rules.Rules, "rule", "rules"), counted(rules.Files, "file", "files"))
	return nil
}

func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// checkTLS reads the certificates that a configuration names.
func checkTLS(cfg *config.Config) error {
	var errs []error
	check := func(t *commoncfg.TLSConfig, path ...any) {
		if _, err := commoncfg.NewTLSConfig(t); err != nil {
			errs = append(errs, fmt.Errorf("%s: tls_config: %w", cfg.At(path...), err))
		}
	}
	for i := range cfg.ServerGroups {
		check(&cfg.ServerGroups[i].HTTPClientConfig.TLSConfig, "server_groups", i)
	}
	for i, am := range cfg.Alerting.AlertmanagerConfigs {
		check(&am.HTTPClientConfig.TLSConfig, "alerting", "alertmanagers", i)
	}
	for i, rw := range cfg.RemoteWrite {
		check(&rw.HTTPClientConfig.TLSConfig, "remote_write", i)
	}
	if cfg.Tracing != nil {
		check(&cfg.Tracing.TLSConfig, "tracing")
	}
	return errors.Join(errs...)
}

// CheckRules prints what is wrong with files of rules, and returns an error if anything
// is.
func CheckRules(o Options, w io.Writer, files []string) error {
	return ruler.CheckFiles(w, parserOf(o), files)
}

func parserOf(o Options) parser.Parser {
	return bounds.Parser(metricsql.Parser(parser.NewParser(parseFeatures(o.EnableFeatures, slog.New(slog.DiscardHandler)).parser)))
}
