package input

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/lease"
)

// BillingMode says how DynamoDB bills a lease table that is made. Its values are DynamoDB's.
type BillingMode string

// The billing modes.
const (
	PayPerRequest BillingMode = "PAY_PER_REQUEST"
	Provisioned   BillingMode = "PROVISIONED"
)

// Limits of DynamoDB.
const (
	maxTags     = 50
	maxTagKey   = 128 // characters
	maxTagValue = 256
)

// defaultCapacity is KCL's for a provisioned lease table, in units per second.
const defaultCapacity = 10

// tableFields are about the lease table, which is worked with as it is once it is there.
var tableFields = []field{
	{
		name: "tableName", byDefault: "", advanced: true, example: "my-lease-table",
		description: "The name of the lease table, when it is not `applicationName`. It may have 3 to 255 of the characters `a-z A-Z 0-9 _ . -`. One table serves one application and one stream.",
		set:         func(c *Config, v any) (err error) { c.TableName, err = parseTableName(v); return },
	},
	{
		name: "createTable", byDefault: true, advanced: true,
		description: "Whether to make the lease table if there is none. With `false` somebody else has to make it, with the hash key `leaseKey` of type `S` and nothing else, and the permission `dynamodb:CreateTable` is not needed. " +
			"This field and those below are about the making: a table that is there is never altered.",
		set: func(c *Config, v any) (err error) { c.CreateTable, err = coerceBool(v); return },
	},
	{
		name: "billingMode", byDefault: string(PayPerRequest), advanced: true, example: string(Provisioned), hint: oneOf(Provisioned, PayPerRequest),
		description: "How a new lease table is billed: `PAY_PER_REQUEST`, or `PROVISIONED` with the two capacities below.",
		set: func(c *Config, v any) (err error) {
			c.BillingMode, err = coerceEnum(v, Provisioned, PayPerRequest)
			return
		},
	},
	{
		name: "initialLeaseTableReadCapacity", advanced: true, hint: Hint{Number: true},
		description: fmt.Sprintf("With `PROVISIONED`, the read capacity units per second of a new lease table; %d if it is left out. A worker reads the table three times in `failoverTimeMillis`, at half a unit for 4 KB.", defaultCapacity),
		set:         func(c *Config, v any) (err error) { c.TableReadCapacity, err = parseCapacity(v); return },
	},
	{
		name: "initialLeaseTableWriteCapacity", advanced: true, hint: Hint{Number: true},
		description: fmt.Sprintf("With `PROVISIONED`, the write capacity units per second of a new lease table; %d if it is left out. Each lease is written three times in `failoverTimeMillis`, at one unit: 100 shards at the default of 10000 take 30.", defaultCapacity),
		set:         func(c *Config, v any) (err error) { c.TableWriteCapacity, err = parseCapacity(v); return },
	},
	{
		name: "tableTags", advanced: true, example: map[string]any{"team": "orders"},
		description: "Tags of a new lease table, as an object of names and values. Takes the permission `dynamodb:TagResource`; without it the table is made without tags, with a warning.",
		set:         func(c *Config, v any) (err error) { c.TableTags, err = parseTags(v); return },
	},
	{
		name: "deletionProtection", byDefault: false, advanced: true,
		description: "Whether DynamoDB shall refuse to delete a new lease table.",
		set:         func(c *Config, v any) (err error) { c.DeletionProtection, err = coerceBool(v); return },
	},
	{
		name: "pointInTimeRecovery", byDefault: false, advanced: true,
		description: "Whether to switch on point-in-time recovery of a new lease table. Takes the permission `dynamodb:UpdateContinuousBackups`; without it the table is used without, with a warning.",
		set:         func(c *Config, v any) (err error) { c.PointInTimeRecovery, err = coerceBool(v); return },
	},
}

// tableRules are the rules about more than one of them.
var tableRules = []crossRule{
	{[]string{"applicationName", "tableName"}, func(c *Config) error {
		// KCL takes its version from which of its tables are there.
		for _, suffix := range []string{"-CoordinatorState", "-WorkerMetricStats"} {
			if c.TableName == c.ApplicationName+suffix {
				return fmt.Errorf("tableName %s is a table of KCL 3.x's own for this applicationName: write another name, or leave the field out", c.TableName)
			}
		}
		return nil
	}},
	{[]string{"billingMode", "initialLeaseTableReadCapacity", "initialLeaseTableWriteCapacity"}, func(c *Config) error {
		if c.BillingMode == PayPerRequest && (c.TableReadCapacity > 0 || c.TableWriteCapacity > 0) {
			return errors.New("initialLeaseTableReadCapacity and initialLeaseTableWriteCapacity are for a provisioned table: write billingMode: PROVISIONED, or leave them out")
		}
		return nil
	}},
	{[]string{"createTable", "billingMode", "tableTags", "deletionProtection", "pointInTimeRecovery"}, func(c *Config) error {
		if c.CreateTable {
			return nil
		}
		var idle []string
		for name, set := range map[string]bool{
			"billingMode": c.BillingMode == Provisioned, "tableTags": len(c.TableTags) > 0,
			"deletionProtection": c.DeletionProtection, "pointInTimeRecovery": c.PointInTimeRecovery,
		} {
			if set {
				idle = append(idle, name)
			}
		}
		if len(idle) == 0 {
			return nil
		}
		slices.Sort(idle)
		return fmt.Errorf("createTable: false leaves the lease table as it is, so that %s would do nothing: leave that out, or write createTable: true", strings.Join(idle, ", "))
	}},
}

// tableName is the name of the lease table.
func (c *Config) tableName() string {
	if c.TableName != "" {
		return c.TableName
	}
	return c.ApplicationName
}

// tableCreation is how the lease table is made where there is none.
func (c *Config) tableCreation() lease.Creation {
	how := lease.Creation{
		Never: !c.CreateTable, Tags: c.TableTags, DeletionProtection: c.DeletionProtection, PointInTimeRecovery: c.PointInTimeRecovery,
	}
	if c.BillingMode == Provisioned {
		how.ReadCapacity, how.WriteCapacity = defaultCapacity, defaultCapacity
		if c.TableReadCapacity > 0 {
			how.ReadCapacity = c.TableReadCapacity
		}
		if c.TableWriteCapacity > 0 {
			how.WriteCapacity = c.TableWriteCapacity
		}
	}
	return how
}

func parseTableName(v any) (string, error) {
	s, err := coerceString(v)
	if err != nil || s == "" || tableName.MatchString(s) {
		return s, err
	}
	return "", fmt.Errorf("%s cannot be the name of a table in DynamoDB: write %d to %d of the characters a-z A-Z 0-9 _ . -, for example %s, or leave the field out for applicationName",
		shown(s), minTableName, maxTableName, proposeTableName(s))
}

func parseCapacity(v any) (int64, error) {
	return coerceInt(v, 1, math.MaxInt32, "a number of capacity units per second", "10")
}

// parseTags takes an object. Its values may be anything that has one text.
func parseTags(v any) (map[string]string, error) {
	object, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%s is not an object: write names and values, for example {team: orders}", shown(v))
	}
	if len(object) > maxTags {
		return nil, fmt.Errorf("has %d tags, and a table may have %d: write fewer", len(object), maxTags)
	}
	tags := make(map[string]string, len(object))
	for _, key := range slices.Sorted(maps.Keys(object)) {
		value, err := coerceString(object[key])
		switch {
		case object[key] == nil:
			return nil, fmt.Errorf("has no value for %s: write a text, which may be empty", shown(key))
		case err != nil:
			return nil, fmt.Errorf("has a value for %s that cannot be used: %w", shown(key), err)
		case key == "" || len([]rune(key)) > maxTagKey:
			return nil, fmt.Errorf("has the name %s: write 1 to %d characters", shown(key), maxTagKey)
		case strings.HasPrefix(strings.ToLower(key), "aws:"):
			return nil, fmt.Errorf("has the name %s, whose beginning AWS keeps for itself: write another", shown(key))
		case len([]rune(value)) > maxTagValue:
			return nil, fmt.Errorf("has a value of %d characters for %s: write at most %d", len([]rune(value)), shown(key), maxTagValue)
		}
		tags[key] = value
	}
	return tags, nil
}
