# make            lint, build and test
# make demo       a world of small Prometheus with oneprom in front of it
# make help       every target

GO       ?= go
BINARY   ?= oneprom
FUZZTIME ?= 60s
DIFFTIME ?= 1h
DIFFSEED ?= $(shell date +%s)

# Most tests need no clients of clouds, which take minutes to build.
SLIM := -tags remove_all_sd

# Which oneprom this is: --version, oneprom_build_info, the log and traces say it. The
# date is the commit's, and nobody's name is in it: built again, a commit gives the same
# binary. Without git, the binary says what the go command recorded.
stamp = -X github.com/prometheus/common/version.$(1)=$(shell TZ=UTC0 git $(2) 2>/dev/null)
STAMP = $(call stamp,Version,describe --tags --always --dirty) \
	$(call stamp,Revision,rev-parse HEAD) \
	$(call stamp,Branch,rev-parse --abbrev-ref HEAD) \
	$(call stamp,BuildDate,log -1 --format=%cd --date=format-local:%Y-%m-%dT%H:%M:%SZ)

# Tools of the build alone have a go.mod of their own.
LINT := $(GO) tool -modfile=.ci/tools/go.mod golangci-lint

.PHONY: all build demo demo-check test test-race test-plan test-discoveries e2e fuzz fuzz-differential bench bench-paired lint fmt help

all: lint build test

build: ## the binary, as ./oneprom
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(STAMP)' -o $(BINARY) .

demo: ## run oneprom in front of an embedded world; Ctrl-C ends it
	@GO='$(GO)' ./.ci/demo

demo-check: ## start the demo as a user would and interrupt it after its table
	./.ci/demo-check

test: ## the fast tests, in a few minutes
	$(GO) test -short $(SLIM) -shuffle=on -timeout 10m ./...

test-race: ## the fast tests and those that take longer, with the race detector
	$(GO) test -race $(SLIM) -shuffle=on -timeout 30m ./...

test-plan: ## the planner's tests that take longer, without the race detector
	$(GO) test $(SLIM) -timeout 30m ./promqlx/plan

test-discoveries: ## the tests of the binary with all service discoveries, built as `make build` does
	CGO_ENABLED=0 $(GO) test -trimpath -timeout 30m .

# -short, because make test-race runs what the fast tests leave out.
e2e: ## the slow tests: upstream's PromQL tests over HTTP, worlds of real Prometheus, promtool
	$(GO) test -short -p 1 $(SLIM),e2e -timeout 60m -count=1 -v ./proxy/e2e/...

fuzz: ## every fuzz test for FUZZTIME
	@set -e; grep -rho --include='*_test.go' --with-filename '^func Fuzz[A-Za-z0-9_]*' . | sed 's/:func / /' | while read -r file f; do \
	  echo "== $$file $$f"; $(GO) test $(SLIM) -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $(FUZZFLAGS) "$$(dirname "$$file")" </dev/null; \
	done

fuzz-differential: ## random questions to random worlds for DIFFTIME, against one Prometheus
	$(GO) test $(SLIM) ./proxy/e2e/differential -run '^TestDifferential$$' -v -count=1 -timeout 0 -differential.duration=$(DIFFTIME) -differential.seed=$(DIFFSEED) $(DIFFFLAGS)

bench: ## ratios against one Prometheus that has all the data, and the benchmarks of packages
	$(GO) test $(SLIM) -run '^$$' -bench . -benchmem ./dedup ./promqlx ./servergroup/...
	ONEPROM_BENCH=1 $(GO) test $(SLIM),e2e -timeout 60m -count=1 -v -run '^TestBench' ./proxy/e2e

bench-paired: ## processor time beside another oneprom: make bench-paired BASELINE=/path/to/binary
	ONEPROM_BENCH_BASELINE=$(abspath $(BASELINE)) $(GO) test $(SLIM),e2e -timeout 90m -count=1 -v -run '^TestBenchPaired$$' ./proxy/e2e

lint: ## gofmt, vet, and golangci-lint with .golangci.yml
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo 'run make fmt'; exit 1; }
	$(GO) vet -stdmethods=false $(SLIM),e2e ./...
	$(LINT) run

fmt: ## format all files as lint wants them
	$(LINT) fmt

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "make %-18s %s\n", $$1, $$2}' Makefile
