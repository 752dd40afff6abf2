package command

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"
	"gopkg.in/yaml.v3"

	"github.com/kinesis-pulsar/kinesis-pulsar/command/leases"
	"github.com/kinesis-pulsar/kinesis-pulsar/input"
	"github.com/kinesis-pulsar/kinesis-pulsar/lint"
)

func (b Binary) leases() *cli.Command {
	return &cli.Command{
		Name:      "leases",
		Usage:     "Look at the lease table: who reads which shard, from where, how far behind, and what it waits for",
		ArgsUsage: "FILE",
		Description: "FILE is a config with a kinesis_pulsar input; of several, --table chooses one. Without a file the stream is named by --stream,\n" +
			"--region and --application. Looking changes nothing, and works on tables of the Java connector and of any KCL.\n\n" +
			"Repairs are shown first, and carried out with --apply, when no owner has been seen alive for the failover time:\n" +
			"  --reset SHARD|all --to TRIM_HORIZON|LATEST|2026-01-31T12:00:00Z|SEQUENCE[:SUB]\n" +
			"  --release WORKER|SHARD\n" +
			"  --deregister CONSUMER",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "table", Usage: "the lease table to look at, of a config with several"},
			&cli.StringFlag{Name: "stream", Usage: "name or ARN of the stream, without a file"},
			&cli.StringFlag{Name: "region", Usage: "its region, without a file"},
			&cli.StringFlag{Name: "application", Usage: "the applicationName, without a file"},
			&cli.BoolFlag{Name: "watch", Usage: "look again every few seconds, until interrupted"},
			&cli.DurationFlag{Name: "interval", Value: 5 * time.Second, Usage: "how often --watch looks"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON; with --watch a document for each look"},
			&cli.BoolFlag{Name: "no-lag", Usage: "do not read from the shards, which costs each one of its five reads a second"},
			&cli.BoolFlag{Name: "consumers", Usage: "list the consumers of enhanced fan-out"},
			&cli.StringFlag{Name: "reset", Usage: "a shard, or all, to read from another position"},
			&cli.StringFlag{Name: "to", Usage: "that position"},
			&cli.StringFlag{Name: "release", Usage: "a dead worker, or a shard, to take the owner away from"},
			&cli.StringFlag{Name: "deregister", Usage: "a consumer of enhanced fan-out to remove"},
			&cli.BoolFlag{Name: "apply", Usage: "carry the repair out"},
			&cli.StringSliceFlag{Name: "env-file", Aliases: []string{"e"}, Usage: "dotenv files to read environment variables from"},
		},
		Action: func(c *cli.Context) error {
			if err := b.leasesAction(c); err != nil {
				return fmt.Errorf("leases: %s", oneLine(err.Error()))
			}
			return nil
		},
	}
}

func (b Binary) leasesAction(c *cli.Context) error {
	if err := readEnvironment(c.StringSlice("env-file")); err != nil {
		return err
	}
	jobs := 0
	for _, f := range []string{"watch", "consumers", "reset", "release", "deregister"} {
		if c.IsSet(f) {
			jobs++
		}
	}
	switch {
	case jobs > 1:
		return errors.New("one of --watch, --consumers, --reset, --release and --deregister at a time")
	case c.IsSet("to") != c.IsSet("reset"):
		return errors.New("--reset SHARD and --to POSITION go together")
	case c.Duration("interval") < time.Second:
		return errors.New("--interval must be 1s or more: each look reads the whole table")
	case c.Bool("apply") && jobs == 0:
		return errors.New("--apply needs something to do: --reset, --release or --deregister")
	}
	config, err := b.inputConfig(c)
	if err != nil {
		return err
	}
	services, err := config.Connect(c.Context, nil)
	if err != nil {
		return err
	}
	defer services.Close()
	stream := config.StreamName
	if config.StreamARN != "" {
		stream = config.StreamARN
	}
	source := leases.Source{Kinesis: services.Kinesis, Table: services.Table, Stream: stream, Failover: config.FailoverTime}
	switch {
	case c.Bool("consumers"):
		return b.consumers(c, source)
	case c.IsSet("deregister"):
		return b.deregister(c, source)
	case c.IsSet("reset"), c.IsSet("release"):
		return b.repair(c, source)
	case c.Bool("watch"):
		return b.watch(c, source)
	}
	v, err := source.Look(c.Context, !c.Bool("no-lag"), time.Now())
	if err != nil {
		return err
	}
	return b.show(v, c.Bool("json"))
}

// inputConfig is the configuration of the input that the arguments name.
func (b Binary) inputConfig(c *cli.Context) (input.Config, error) {
	var found []input.Config
	switch {
	case c.Args().Len() > 1:
		return input.Config{}, fmt.Errorf("give one file, not %s", strings.Join(c.Args().Slice(), " "))
	case c.Args().Len() == 1 && (c.IsSet("stream") || c.IsSet("region") || c.IsSet("application")):
		return input.Config{}, errors.New("--stream, --region and --application are for a look without a file; of a file with several inputs --table chooses one")
	case c.Args().Len() == 0:
		if c.String("stream") == "" {
			return input.Config{}, fmt.Errorf("give a config with a kinesis_pulsar input, or --stream; write %s leases config.yaml", b.Name)
		}
		fields := map[string]string{"awsKinesisStreamName": c.String("stream"), "awsRegion": c.String("region")}
		if c.IsSet("application") {
			fields["applicationName"] = c.String("application")
		}
		config, err := parseInput(fields)
		return config, err
	}
	file := c.Args().First()
	text, err := os.ReadFile(file)
	if err != nil {
		return input.Config{}, err
	}
	root, err := lint.ParseYAML(text, nil)
	if err != nil {
		return input.Config{}, fmt.Errorf("%s: %w", file, err)
	}
	// Each component is parsed by itself, where an alias of something outside stands for nothing.
	if text, err = yaml.Marshal(unaliased(root)); err != nil {
		return input.Config{}, fmt.Errorf("%s: %w", file, err)
	}
	err = b.Schema().NewStreamConfigWalker().WalkComponentsYAML(text, func(w *service.WalkedComponent) error {
		if w.ComponentType != "input" || w.Name != input.Name {
			return nil
		}
		var component map[string]yaml.Node
		if err := yaml.Unmarshal([]byte(w.ConfigYAML()), &component); err != nil {
			return fmt.Errorf("%s: %w", w.Path, err)
		}
		fields := component[input.Name]
		config, err := parseInput(&fields)
		if err != nil {
			return fmt.Errorf("%s: %w", w.Path, err)
		}
		found = append(found, config)
		return nil
	})
	if err != nil {
		return input.Config{}, fmt.Errorf("%s: %w", file, err)
	}
	var tables []string
	for _, config := range found {
		if name := config.LeaseTable(); c.String("table") == name || c.String("table") == "" && len(found) == 1 {
			return config, nil
		}
		tables = append(tables, config.LeaseTable())
	}
	switch {
	case len(found) == 0:
		return input.Config{}, fmt.Errorf("%s: there is no kinesis_pulsar input in it", file)
	case c.String("table") == "":
		return input.Config{}, fmt.Errorf("%s has several inputs; choose one by --table, which is one of %s", file, strings.Join(tables, ", "))
	}
	return input.Config{}, fmt.Errorf("%s: no input has the lease table %s; they have %s", file, c.String("table"), strings.Join(tables, ", "))
}

// unaliased is a copy in which what an alias stands for is written out.
func unaliased(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	c := *n
	c.Anchor, c.Content = "", nil
	for _, child := range n.Content {
		c.Content = append(c.Content, unaliased(child))
	}
	return &c
}

func parseInput(fields any) (input.Config, error) {
	text, err := yaml.Marshal(fields)
	if err != nil {
		return input.Config{}, err
	}
	parsed, err := input.Spec().ParseYAML(string(text), service.NewEnvironment())
	if err != nil {
		return input.Config{}, err
	}
	return input.ParseConfig(parsed)
}

// watch looks again and again. What a single look cannot tell, it can: whether an owner lives.
func (b Binary) watch(c *cli.Context, source leases.Source) error {
	ticker := time.NewTicker(c.Duration("interval"))
	defer ticker.Stop()
	clear := ""
	if f, isFile := b.out().(*os.File); isFile && term.IsTerminal(int(f.Fd())) && !c.Bool("json") {
		clear = "\x1b[H\x1b[2J"
	}
	var movement leases.Movement
	for {
		v, err := source.Look(c.Context, !c.Bool("no-lag"), time.Now())
		if c.Context.Err() != nil {
			return nil
		}
		if err != nil {
			// A table that does not answer for once is no reason to stop watching it.
			fmt.Fprintf(b.err(), "%s %s\n", time.Now().Format(time.TimeOnly), oneLine(err.Error()))
		} else {
			movement.Note(&v)
			fmt.Fprint(b.out(), clear)
			if err := b.show(v, c.Bool("json")); err != nil {
				return err
			}
		}
		select {
		case <-ticker.C:
		case <-c.Context.Done():
			return nil
		}
	}
}

func (b Binary) show(v leases.View, asJSON bool) error {
	if asJSON {
		return b.printJSON(v)
	}
	fmt.Fprintf(b.out(), "table %s, stream %s, %s\n\n", v.Table, v.Stream, moment(v.At))
	w := tabwriter.NewWriter(b.out(), 0, 0, 2, ' ', 0)
	lineage := slices.ContainsFunc(v.Rows, func(r leases.Row) bool { return len(r.Parents)+len(r.Children) > 0 })
	fmt.Fprint(w, "SHARD\tSTATE\tOWNER\tPOSITION\tARRIVED\tBEHIND\tRENEWED")
	if lineage {
		fmt.Fprint(w, "\tPARENTS\tCHILDREN")
	}
	fmt.Fprintln(w)
	for _, r := range v.Rows {
		position := shortened(r.Position)
		if r.Start != "" {
			position += " = " + r.Start
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s", leases.Printable(r.Shard), r.State, owner(r), position, ago(v.At, r.Arrived), behind(r.Lag), ago(v.At, r.Moved))
		if lineage {
			fmt.Fprintf(w, "\t%s\t%s", numbers(r.Parents), numbers(r.Children))
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, r := range v.Rows {
		if len(r.WaitsFor) > 0 {
			fmt.Fprintf(b.out(), "\n%s waits for the end of %s", leases.Printable(r.Shard), strings.Join(r.WaitsFor, ", "))
		}
		if r.AskedBy != "" {
			fmt.Fprintf(b.out(), "\n%s is asked for by %s", leases.Printable(r.Shard), leases.Printable(r.AskedBy))
		}
	}
	for _, n := range sameNotes(v.Rows) {
		fmt.Fprintf(b.out(), "\n%s: %s", n.shards, n.what)
	}
	if len(v.KCL3) > 0 {
		fmt.Fprintf(b.out(), "\nKCL 3.x was here: %s", strings.Join(v.KCL3, ", "))
	}
	for _, n := range v.Handback {
		fmt.Fprintf(b.out(), "\nbefore a KCL takes the table back: %s", n)
	}
	for _, n := range v.Trouble {
		fmt.Fprintf(b.out(), "\nnot looked at: %s", oneLine(n))
	}
	_, err := fmt.Fprintln(b.out())
	return err
}

// moment is a time as all columns have it, and as POSITION has its own: of UTC, whoever looks from wherever.
func moment(t time.Time) string { return t.UTC().Format(time.DateTime) + " UTC" }

// remark is something that is to be said of several shards.
type remark struct{ shards, what string }

// sameNotes puts shards of which the same is to be said together: on a table of another stream that is all of them.
func sameNotes(rows []leases.Row) (found []remark) {
	of := map[string][]string{}
	var order []string
	for _, r := range rows {
		for _, n := range r.Notes {
			if of[n] == nil {
				order = append(order, n)
			}
			of[n] = append(of[n], leases.Printable(r.Shard))
		}
	}
	for _, n := range order {
		found = append(found, remark{leases.Some(of[n]), leases.Printable(n)})
	}
	return found
}

// shortened keeps the end of a sequence number of 56 digits, which is where two of them differ.
func shortened(position string) string {
	const enough = 20
	if len(position) <= enough {
		return position
	}
	return "…" + position[len(position)-enough:]
}

// numbers are shards in a narrow column: what their names have in common is left out.
func numbers(shards []string) string {
	short := make([]string, len(shards))
	for i, s := range shards {
		short[i] = s
		if n, is := strings.CutPrefix(s, "shardId-"); is {
			short[i] = cmp.Or(strings.TrimLeft(n, "0"), "0")
		}
	}
	return strings.Join(short, ",")
}

func owner(r leases.Row) string {
	if r.Program == "KCL" {
		return leases.Printable(r.Owner) + " (KCL)"
	}
	return leases.Printable(r.Owner)
}

func ago(now time.Time, then *time.Time) string {
	if then == nil {
		return ""
	}
	return max(0, now.Sub(*then)).Round(time.Second).String() + " ago"
}

func behind(lag *time.Duration) string {
	if lag == nil {
		return ""
	}
	return lag.Round(time.Second).String()
}

func (b Binary) repair(c *cli.Context, source leases.Source) error {
	v, err := source.Look(c.Context, false, time.Now())
	if err != nil {
		return err
	}
	var plan []leases.Repair
	if c.IsSet("reset") {
		to, at, err := leases.ParsePosition(c.String("to"), time.Now())
		if err != nil {
			return fmt.Errorf("--to: %w", err)
		}
		plan, err = v.PlanReset(c.String("reset"), to, at)
		if err != nil {
			return err
		}
	} else if plan, err = v.PlanRelease(c.String("release")); err != nil {
		return err
	}
	for _, r := range plan {
		fmt.Fprintln(b.out(), r)
	}
	if !c.Bool("apply") {
		fmt.Fprintln(b.out(), "Nothing was changed. --apply does it.")
		return nil
	}
	done, err := source.Apply(c.Context, plan)
	if err != nil {
		return fmt.Errorf("%d of %d done, then: %w", len(done), len(plan), err)
	}
	fmt.Fprintf(b.out(), "%d done.\n", len(done))
	return nil
}

func (b Binary) consumers(c *cli.Context, source leases.Source) error {
	all, err := source.Consumers(c.Context)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return b.printJSON(all)
	}
	w := tabwriter.NewWriter(b.out(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CONSUMER\tSTATUS\tREGISTERED")
	for _, consumer := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\n", consumer.Name, consumer.Status, moment(consumer.Created))
	}
	return w.Flush()
}

func (b Binary) deregister(c *cli.Context, source leases.Source) error {
	all, err := source.Consumers(c.Context)
	if err != nil {
		return err
	}
	for _, consumer := range all {
		if consumer.Name != c.String("deregister") && consumer.ARN != c.String("deregister") {
			continue
		}
		if !c.Bool("apply") {
			fmt.Fprintf(b.out(), "%s, registered %s: whoever reads by it is cut off. Nothing was changed. --apply does it.\n", consumer.Name, moment(consumer.Created))
			return nil
		}
		if err := source.Deregister(c.Context, consumer); err != nil {
			return err
		}
		fmt.Fprintf(b.out(), "%s is being removed.\n", consumer.Name)
		return nil
	}
	return fmt.Errorf("--deregister: the stream has no consumer %s; --consumers lists them", c.String("deregister"))
}

func (b Binary) printJSON(v any) error {
	e := json.NewEncoder(b.out())
	e.SetIndent("", "  ")
	return e.Encode(v)
}
