package input

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"
	"pgregory.net/rapid"
)

// coercionCase is one line of testdata/config/coercion.json: a value as it is written after the field's name in YAML,
// and either what the field then holds or a part of the error.
type coercionCase struct {
	Field, YAML string
	Want        *string
	Error       string
}

func coercionCases(t testing.TB) []coercionCase {
	t.Helper()
	b, err := os.ReadFile("testdata/config/coercion.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []coercionCase
	if err := json.Unmarshal(b, &cases); err != nil {
		t.Fatal(err)
	}
	return cases
}

// config puts the value into an otherwise good config.
func (c coercionCase) config() string {
	lines := ""
	for line := range strings.Lines(minimal) {
		if !strings.HasPrefix(line, c.Field+":") {
			lines += line
		}
	}
	if strings.HasPrefix(c.Field, "initialLeaseTable") {
		lines += "billingMode: PROVISIONED\n" // or they are refused, whatever they are
	}
	return lines + c.Field + ": " + c.YAML + "\n"
}

// heldIn is what a config holds in a field, as text.
func heldIn(c Config, field string) string {
	switch field {
	case "awsKinesisStreamName":
		return c.StreamName
	case "awsRegion":
		return c.Region
	case "awsEndpoint":
		return c.Endpoint
	case "dynamoEndpoint":
		return c.DynamoEndpoint
	case "cloudwatchEndpoint":
		return c.CloudWatchEndpoint
	case "awsCredentialPluginName":
		return c.CredentialPluginName
	case "awsCredentialPluginParam":
		return c.CredentialPluginParam.Reveal()
	case "initialPositionInStream":
		return string(c.InitialPosition)
	case "startAtTime":
		if c.StartAtTime.IsZero() {
			return ""
		}
		return c.StartAtTime.Format(time.RFC3339Nano)
	case "applicationName":
		return c.ApplicationName
	case "checkpointInterval":
		return c.CheckpointInterval.String()
	case "backoffTime":
		return c.BackoffTime.String()
	case "numRetries":
		return strconv.Itoa(c.NumRetries)
	case "receiveQueueSize":
		return strconv.Itoa(c.ReceiveQueueSize)
	case "useEnhancedFanOut":
		return strconv.FormatBool(c.UseEnhancedFanOut)
	case "kinesisRecordProperties":
		return strings.Trim(fmt.Sprint(c.RecordProperties), "[]")
	case "messageKeyMode":
		return string(c.MessageKeyMode)
	case "recreatedStream":
		return string(c.RecreatedStream)
	case "failoverTimeMillis":
		return c.FailoverTime.String()
	case "maxRecords":
		return strconv.Itoa(c.MaxRecords)
	case "idleTimeBetweenReadsInMillis":
		return c.IdleTimeBetweenReads.String()
	case "maxLeasesForWorker":
		return strconv.Itoa(c.MaxLeasesForWorker)
	case "consumerName":
		return c.ConsumerName
	case "consumerArn":
		return c.ConsumerARN
	case "maxBufferedBytes":
		return strconv.FormatInt(c.MaxBufferedBytes, 10)
	case "tableName":
		return c.TableName
	case "createTable":
		return strconv.FormatBool(c.CreateTable)
	case "billingMode":
		return string(c.BillingMode)
	case "initialLeaseTableReadCapacity":
		return strconv.FormatInt(c.TableReadCapacity, 10)
	case "initialLeaseTableWriteCapacity":
		return strconv.FormatInt(c.TableWriteCapacity, 10)
	case "tableTags":
		return strings.TrimPrefix(fmt.Sprint(c.TableTags), "map") // sorted
	case "deletionProtection":
		return strconv.FormatBool(c.DeletionProtection)
	case "pointInTimeRecovery":
		return strconv.FormatBool(c.PointInTimeRecovery)
	}
	return "no such field"
}

func TestCoercionTable(t *testing.T) {
	env := newConfigTester(t, nil)
	seen := map[string]bool{}
	for _, c := range coercionCases(t) {
		seen[c.Field] = true
		lints := env.lint(t, c.config())
		got, err := env.parse(t, c.config())
		switch {
		case c.Want != nil && (err != nil || len(lints) != 0):
			t.Errorf("%s: %s is refused: %v, lints %q", c.Field, c.YAML, err, lints)
		case c.Want != nil && heldIn(got, c.Field) != *c.Want:
			t.Errorf("%s: %s is read as %q, want %q", c.Field, c.YAML, heldIn(got, c.Field), *c.Want)
		case c.Want == nil && err == nil:
			t.Errorf("%s: %s is read as %q, want the error %q", c.Field, c.YAML, heldIn(got, c.Field), c.Error)
		case c.Want == nil && (c.Error == "" || !strings.Contains(err.Error(), c.Error)):
			t.Errorf("%s: %s gives the error %q, want %q", c.Field, c.YAML, err, c.Error)
		case c.Want == nil && strings.Join(lints, "\n") != err.Error():
			t.Errorf("%s: %s: lint says %q, parsing %q", c.Field, c.YAML, lints, err)
		}

		// The same value as JSON brings it, where every number is a float: the streams API merges patches that way.
		var v any
		if c.YAML == "" || json.Unmarshal([]byte(c.YAML), &v) != nil || c.Field == "maxBufferedBytes" && len(c.YAML) > 18 {
			continue
		}
		raw := map[string]any{"awsKinesisStreamName": "my-stream", "awsRegion": "us-east-1"}
		if strings.HasPrefix(c.Field, "initialLeaseTable") {
			raw["billingMode"] = string(Provisioned)
		}
		raw[c.Field] = v
		fromJSON, jsonErr := parseConfig(raw, time.Now())
		if (err == nil) != (jsonErr == nil) || err == nil && heldIn(fromJSON, c.Field) != heldIn(got, c.Field) {
			t.Errorf("%s: %s as JSON is read as %q (%v), as YAML %q (%v)", c.Field, c.YAML, heldIn(fromJSON, c.Field), jsonErr, heldIn(got, c.Field), err)
		}
	}
	for _, f := range fields {
		if !seen[f.name] {
			t.Errorf("the table has no case for %s", f.name)
		}
	}
}

// Every error must say what to write; "field: wrong" alone sends people to the documentation.
func TestErrorsNameTheFieldAndTheWayOut(t *testing.T) {
	env := newConfigTester(t, nil)
	for _, c := range coercionCases(t) {
		if c.Want != nil {
			continue
		}
		_, err := env.parse(t, c.config())
		if err == nil {
			continue // told by the table's own test
		}
		text := err.Error()
		named := strings.Contains(text, c.Field) || strings.Contains(text, "awsCredentialPlugin") || strings.Contains(text, "accessKey")
		if !named || !strings.Contains(text, "write") && !strings.Contains(text, "must be") && !strings.Contains(text, "cannot be null") && !strings.Contains(text, "correct the day") && !strings.Contains(text, "which is none of") {
			t.Errorf("%s: %s: %s", c.Field, c.YAML, text)
		}
	}
}

// anyValue draws what may stand in a config: mostly near misses of good values.
func anyValue(t *rapid.T) any {
	return rapid.OneOf(
		rapid.Just[any](nil),
		rapid.Map(rapid.Bool(), func(b bool) any { return b }),
		rapid.Map(rapid.IntRange(-3, 20000), func(n int) any { return n }),
		rapid.Map(rapid.Int64(), func(n int64) any { return n }),
		rapid.Map(rapid.Float64Range(-10, 1e13), func(f float64) any { return f }),
		rapid.Map(rapid.SampledFrom([]string{"", " ", "LATEST", "AT_TIMESTAMP", "SHARD_ID", "my-stream", "us-east-1", "http://localhost:1", "kinesis.shard.id", "{}", "true",
			"30000", "2019-03-05", "2019-03-05T19:28:58.000Z", "org.apache.pulsar.io.aws.STSAssumeRoleProviderPlugin", `{"accessKey":"a","secretKey":"b"}`,
			`{"roleArn":"arn:aws:iam::123456789012:role/r","roleSessionName":"abc"}`}), func(s string) any { return s }),
		rapid.Map(rapid.StringMatching(`[ -~]{0,12}`), func(s string) any { return s }),
		rapid.Map(rapid.String(), func(s string) any { return s }),
		rapid.Map(rapid.Int64Range(-1<<40, 1<<45), func(ms int64) any { return time.UnixMilli(ms).UTC() }),
		rapid.Just[any]([]any{"kinesis.shard.id"}),
		rapid.Just[any](map[string]any{"accessKey": "a", "secretKey": "b"}),
	).Draw(t, "value")
}

// What lint passes must start, what does not start must have been told by lint, for whole configs of any values.
func TestLintAndParseAgree(t *testing.T) {
	env := newConfigTester(t, nil)
	distantFuture := time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	accepted := 0
	rapid.Check(t, func(t *rapid.T) {
		conf := map[string]any{"awsKinesisStreamName": "my-stream", "awsRegion": "us-east-1"}
		names := make([]string, len(fields))
		for i, f := range fields {
			names[i] = f.name
		}
		for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom(names), 1, 4, rapid.ID).Draw(t, "fields") {
			conf[name] = anyValue(t)
		}
		text, err := yaml.Marshal(conf)
		if err != nil {
			t.Skip("not YAML")
		}
		lints, err := env.component.LintInputYAML([]byte(indent("kinesis_pulsar", string(text))))
		if err != nil {
			t.Skip("not a config")
		}
		parsed, err := env.spec.ParseYAML(string(text), env.Environment)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		_, err = parseConfig(rawFields(parsed), distantFuture)
		said := []string{}
		for _, l := range lints {
			said = append(said, l.What)
		}
		var told []string
		if err != nil {
			var joined interface{ Unwrap() []error }
			if !errors.As(err, &joined) {
				t.Fatalf("%T", err)
			}
			for _, e := range joined.Unwrap() {
				told = append(told, e.Error())
			}
		} else {
			accepted++
		}
		slices.Sort(said)
		slices.Sort(told)
		if !slices.Equal(said, told) {
			t.Fatalf("%s\nlint says %q\nparsing   %q", text, said, told)
		}
	})
	if accepted == 0 {
		t.Error("no config was accepted: the test shows nothing about good ones")
	}
}

func TestFieldsWithMoreThanOneMessageAreLintedInPlace(t *testing.T) {
	env := newConfigTester(t, nil)
	lints, err := env.component.LintInputYAML([]byte("kinesis_pulsar:\n  awsKinesisStreamName: s\n  awsRegion: r\n  numRetries: x\n  checkpointInterval: ''\n"))
	if err != nil || len(lints) != 2 || lints[0].Line != 4 || lints[1].Line != 5 {
		t.Errorf("lints do not stand at their lines: %v %v", lints, err)
	}
}

func FuzzCoerceTime(f *testing.F) {
	for _, c := range coercionCases(f) {
		if c.Field == "startAtTime" {
			f.Add(strings.Trim(c.YAML, `"`))
		}
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := coerceTime(s)
		if err != nil || got.IsZero() {
			return
		}
		if got.Location() != time.UTC || got.Nanosecond()%int(time.Millisecond) != 0 {
			t.Errorf("%q is read as %v", s, got)
		}
		if y := got.Year(); y < 0 || y > 9999 {
			return // a zone can carry the last hours of a year over its end, where no four digits follow
		}
		again, err := coerceTime(got.Format("2006-01-02T15:04:05.000Z"))
		if err != nil || !again.Equal(got) {
			t.Errorf("%q is read as %v, and that as %v, %v", s, got, again, err)
		}
	})
}

func FuzzCoerceInt(f *testing.F) {
	for _, s := range []string{"", "0", "-1", "+7", "007", "1.5", "9223372036854775807", "9223372036854775808", " 5 ", "０"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := coerceInt(s, 0, 1<<40, "a number", "5")
		if err != nil {
			return
		}
		if want, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64); err != nil || n != want || n < 0 || n > 1<<40 {
			t.Errorf("%q is read as %d", s, n)
		}
	})
}
