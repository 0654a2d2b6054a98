// Command oneprom is one Prometheus URL in front of many Prometheus.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"
	commoncfg "github.com/prometheus/common/config"
	"github.com/prometheus/common/promslog"
	promslogflag "github.com/prometheus/common/promslog/flag"
	"github.com/prometheus/common/version"
	_ "github.com/prometheus/prometheus/plugins" // the service discoveries

	"github.com/oneprom/oneprom/proxy"
	"github.com/oneprom/oneprom/proxy/api"
	"github.com/oneprom/oneprom/proxy/config"
	"github.com/oneprom/oneprom/proxy/demo"
	"github.com/oneprom/oneprom/proxy/explain"
	"github.com/oneprom/oneprom/proxy/migrate"
	"github.com/oneprom/oneprom/proxy/verify"
	"github.com/oneprom/oneprom/servergroup/redact"
)

// checkTimeout bounds `check healthy` and `check ready`.
const checkTimeout = 10 * time.Second

func main() { os.Exit(run(os.Args[1:])) }

// run returns the exit code: 0 is success, 1 a failure, 2 a wrong command line.
func run(args []string) int {
	if info, ok := debug.ReadBuildInfo(); ok {
		fillVersion(info)
	}
	var (
		opts         proxy.Options
		logConfig    promslog.Config
		configFile   string
		syntaxOnly   bool
		ruleFiles    []string
		serverURL    string
		httpConfig   string
		demoListen   string
		question     explain.OfflineQuestion
		migration    migrate.Command
		verification verify.Command
	)
	app := kingpin.New("oneprom", "One Prometheus URL in front of many Prometheus.").UsageWriter(os.Stdout)
	app.Version(version.Print("oneprom") + "\n  promql version:   " + api.Version)
	app.HelpFlag.Short('h')
	shortenHelp(app)
	proxy.AddFlags(app, &opts)
	promslogflag.AddFlags(app, &logConfig)

	serve := app.Command("serve", "Serve the API. What oneprom does without a command.").Default()
	check := app.Command("check", "Check a configuration file or a running server.")
	checkConfig := check.Command("config", "Print what is wrong with a configuration file and the files that it names; exit with 1 if anything is.")
	checkConfig.Arg("file", "Path of the configuration file.").Required().StringVar(&configFile)
	checkConfig.Flag("syntax-only", "Look at no other file that it names: secrets, certificates, rules.").BoolVar(&syntaxOnly)
	checkRules := check.Command("rules", "Print what is wrong with files of rules; exit with 1 if anything is.")
	checkRules.Arg("files", "Paths of the files.").Required().StringsVar(&ruleFiles)
	checkHealthy := check.Command("healthy", "Exit with 0 if a running server is healthy.")
	checkReady := check.Command("ready", "Exit with 0 if a running server answers queries.")
	for _, c := range []*kingpin.CmdClause{checkHealthy, checkReady} {
		c.Flag("url", "Base URL of the server.").Default("http://localhost:9090").StringVar(&serverURL)
		c.Flag("http.config.file", "HTTP client configuration file for the server, as that of promtool: authentication, TLS, headers.").PlaceHolder("<path>").StringVar(&httpConfig)
	}
	explain := app.Command("explain", "Print what would become of a query, by the configuration file alone. No server is asked.")
	question.AddFlags(explain)
	schema := app.Command("schema", "Print the JSON schema of the configuration file, for editors.")
	migrateCmd := app.Command("migrate", "Write a configuration that does what one of promxy, or of Prometheus, does.")
	migration.AddFlags(migrateCmd)
	verifyCmd := app.Command("verify", "Ask two servers the same queries, and compare the answers. Exit with 0 if all are equal, 1 if some are not, 2 if that was not found out.")
	verification.AddFlags(verifyCmd)
	demoCmd := app.Command("demo", "Run oneprom in front of an embedded world of small Prometheus servers, until interrupted.")
	demoCmd.Flag("listen", "Address that the demo's oneprom listens on.").Default(demo.DefaultListenAddress).StringVar(&demoListen)

	command, err := app.Parse(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "oneprom: %s, try --help\n", err)
		return 2
	}
	switch command {
	case serve.FullCommand():
		opts.Logger = slog.New(redact.LogHandler(promslog.New(&logConfig).Handler()))
		slog.SetDefault(opts.Logger)
		err = serveAPI(opts)
	case checkConfig.FullCommand():
		err = proxy.CheckConfig(opts, os.Stdout, configFile, syntaxOnly)
	case checkRules.FullCommand():
		err = proxy.CheckRules(opts, os.Stdout, ruleFiles)
	case checkHealthy.FullCommand():
		err = checkServer(serverURL, "/-/healthy", httpConfig)
	case checkReady.FullCommand():
		err = checkServer(serverURL, "/-/ready", httpConfig)
	case explain.FullCommand():
		var text string
		if text, err = proxy.ExplainOffline(opts, question); err == nil {
			fmt.Print(text)
		}
	case schema.FullCommand():
		fmt.Print(config.JSONSchema)
	case migrateCmd.FullCommand():
		err = migration.Run(os.Stdout)
	case verifyCmd.FullCommand():
		ctx, stop := untilInterrupted()
		defer stop()
		return verification.Run(ctx, os.Stdout, os.Stderr)
	case demoCmd.FullCommand():
		ctx, stop := untilInterrupted()
		defer stop()
		err = demo.Run(ctx, os.Stdout, demoListen)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, redact.URLs(err.Error()))
		return 1
	}
	return 0
}

// untilInterrupted returns a context that ends with the first signal to stop. A
// second signal ends the process at once.
func untilInterrupted() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// serveAPI serves until a signal or /-/quit says to stop.
func serveAPI(opts proxy.Options) error {
	ctx, stop := untilInterrupted()
	defer stop()
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)

	if os.Getenv("GOGC") == "" {
		// A query's data is garbage soon: collecting half as often costs less memory
		// than it saves time.
		debug.SetGCPercent(200)
	}
	opts.Logger.Info("starting oneprom", "promql", api.Version, "version", version.Info(), "build_context", version.BuildContext())
	opts.LimitMemory()
	server, err := proxy.New(opts)
	if err != nil {
		return err
	}
	go func() {
		for {
			select {
			case <-hangups:
				_ = server.Reload(ctx) // which logs the outcome
			case <-ctx.Done():
				return
			}
		}
	}()
	return server.Run(ctx)
}

// checkServer asks one of the management pages of a running server.
func checkServer(base, page, httpConfig string) error {
	target, err := url.JoinPath(base, page)
	if err != nil {
		return err
	}
	cfg := &commoncfg.DefaultHTTPClientConfig
	if httpConfig != "" {
		if cfg, _, err = commoncfg.LoadHTTPConfigFile(httpConfig); err != nil {
			return fmt.Errorf("--http.config.file: %w", err)
		}
	}
	client, err := commoncfg.NewClientFromConfig(*cfg, "check", commoncfg.WithKeepAlivesDisabled())
	if err != nil {
		return fmt.Errorf("--http.config.file: %w", err)
	}
	client.Timeout = checkTimeout
	resp, err := client.Get(target)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return err
	}
	text := strings.TrimSpace(string(body))
	if resp.StatusCode != http.StatusOK {
		return errors.New(target + ": " + resp.Status + ": " + text)
	}
	fmt.Println(text)
	return nil
}
