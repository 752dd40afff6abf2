package dynamotest

import (
	"crypto/rand"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Shapes of the wire, control plane. Only what the engine reads or answers is named.
type (
	throughput struct {
		ReadCapacityUnits  int64
		WriteCapacityUnits int64
	}
	attributeDefinition struct{ AttributeName, AttributeType string }
	keyElement          struct{ AttributeName, KeyType string }
	projectionShape     struct {
		ProjectionType   string   `json:",omitempty"`
		NonKeyAttributes []string `json:",omitempty"`
	}
	indexShape struct {
		IndexName             string
		KeySchema             []keyElement
		Projection            projectionShape
		ProvisionedThroughput *throughput `json:",omitempty"`
	}
	tag          struct{ Key, Value string }
	tableRequest struct {
		TableName                   string
		AttributeDefinitions        []attributeDefinition
		KeySchema                   []keyElement
		BillingMode                 string
		ProvisionedThroughput       *throughput
		GlobalSecondaryIndexes      []indexShape
		LocalSecondaryIndexes       []indexShape
		DeletionProtectionEnabled   *bool
		Tags                        []tag
		GlobalSecondaryIndexUpdates []struct {
			Create *indexShape
			Delete *struct{ IndexName string }
			Update *struct{ IndexName string }
		}
		PointInTimeRecoverySpecification *struct{ PointInTimeRecoveryEnabled bool }
		ResourceArn                      string
		TagKeys                          []string
		ExclusiveStartTableName          string
		Limit                            int
	}
)

var tableName = regexp.MustCompile(`^[a-zA-Z0-9_.-]{3,255}$`)

func checkTableName(name string) error {
	switch {
	case name == "":
		return validation("The parameter 'TableName' is required but was not present in the request")
	case !tableName.MatchString(name):
		return validation("Invalid table/index name.  Table/index names must be between 3 and 255 characters long, and may contain only the characters a-z, A-Z, 0-9, '_', '-', and '.'")
	}
	return nil
}

func readKeySchema(elements []keyElement, attributes map[string]string) (keySchema, error) {
	var k keySchema
	for i, e := range elements {
		switch {
		case i == 0 && e.KeyType == "HASH":
			k.hash = e.AttributeName
		case i == 1 && e.KeyType == "RANGE":
			k.sort = e.AttributeName
		default:
			return k, validation("Invalid KeySchema: The first KeySchemaElement is not a HASH key type, or more than one of a type is given")
		}
		if attributes[e.AttributeName] == "" {
			return k, validation("One or more parameter values were invalid: Some index key attributes are not defined in AttributeDefinitions. Keys: [%s], AttributeDefinitions: %v", e.AttributeName, slices.Sorted(maps.Keys(attributes)))
		}
	}
	if k.hash == "" {
		return k, validation("No KeySchema is given")
	}
	return k, nil
}

func readAttributes(definitions []attributeDefinition) (map[string]string, error) {
	attributes := map[string]string{}
	for _, d := range definitions {
		if !slices.Contains([]string{"S", "N", "B"}, d.AttributeType) {
			return nil, validation("1 validation error detected: Value '%s' at 'attributeDefinitions.member.attributeType' failed to satisfy constraint: Member must satisfy enum value set: [B, N, S]", d.AttributeType)
		}
		attributes[d.AttributeName] = d.AttributeType
	}
	return attributes, nil
}

func (t *table) newIndex(shape indexShape, activeAt time.Time) (*index, error) {
	if !tableName.MatchString(shape.IndexName) {
		return nil, validation("Invalid table/index name.  Table/index names must be between 3 and 255 characters long, and may contain only the characters a-z, A-Z, 0-9, '_', '-', and '.'")
	}
	if t.index(shape.IndexName) != nil {
		return nil, validation("One or more parameter values were invalid: Duplicate index name: %s", shape.IndexName)
	}
	keys, err := readKeySchema(shape.KeySchema, t.attributes)
	if err != nil {
		return nil, err
	}
	if shape.Projection.ProjectionType == "" {
		return nil, validation("One or more parameter values were invalid: Unknown ProjectionType: null")
	}
	x := &index{name: shape.IndexName, keys: keys, projection: shape.Projection, activeAt: activeAt}
	if shape.ProvisionedThroughput != nil {
		x.throughput = *shape.ProvisionedThroughput
	}
	return x, nil
}

func (t *table) index(name string) *index {
	if i := slices.IndexFunc(t.indexes, func(x *index) bool { return x.name == name }); i >= 0 {
		return t.indexes[i]
	}
	return nil
}

func (db *DB) createTable(in *tableRequest) (any, error) {
	if err := checkTableName(in.TableName); err != nil {
		return nil, err
	}
	attributes, err := readAttributes(in.AttributeDefinitions)
	if err != nil {
		return nil, err
	}
	keys, err := readKeySchema(in.KeySchema, attributes)
	if err != nil {
		return nil, err
	}
	billing := in.BillingMode
	switch {
	case billing == "":
		billing = "PROVISIONED"
	case billing != "PROVISIONED" && billing != "PAY_PER_REQUEST":
		return nil, validation("1 validation error detected: Value '%s' at 'billingMode' failed to satisfy constraint: Member must satisfy enum value set: [PROVISIONED, PAY_PER_REQUEST]", billing)
	}
	switch {
	case billing == "PROVISIONED" && in.ProvisionedThroughput == nil:
		return nil, validation("One or more parameter values were invalid: ReadCapacityUnits and WriteCapacityUnits must both be specified when BillingMode is PROVISIONED")
	case billing == "PAY_PER_REQUEST" && in.ProvisionedThroughput != nil:
		return nil, validation("One or more parameter values were invalid: Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST")
	case len(in.LocalSecondaryIndexes) > 0:
		return nil, validation("dynamotest has no local secondary indexes")
	}
	if db.standing(in.TableName) != nil {
		return nil, tableInUse("Table already exists: %s", in.TableName)
	}
	t := &table{
		name: in.TableName, arn: "arn:aws:dynamodb:us-east-1:000000000000:table/" + in.TableName, id: strings.ToLower(rand.Text()),
		created: db.options.clock(), activeAt: time.Now().Add(db.options.createDelay),
		keys: keys, attributes: attributes, billing: billing, tags: map[string]string{}, records: map[string]*record{},
	}
	if in.ProvisionedThroughput != nil {
		t.throughput = *in.ProvisionedThroughput
	}
	if in.DeletionProtectionEnabled != nil {
		t.protected = *in.DeletionProtectionEnabled
	}
	for _, tag := range in.Tags {
		t.tags[tag.Key] = tag.Value
		db.mu.calls[Call{"TagResource", t.name}] = true // AWS asks for this permission, too
	}
	used := keys.names()
	for _, shape := range in.GlobalSecondaryIndexes {
		x, err := t.newIndex(shape, t.activeAt)
		if err != nil {
			return nil, err
		}
		t.indexes = append(t.indexes, x)
		used = append(used, x.keys.names()...)
	}
	for name := range attributes {
		if !slices.Contains(used, name) {
			return nil, validation("One or more parameter values were invalid: Number of attributes in KeySchema does not exactly match number of attributes defined in AttributeDefinitions")
		}
	}
	db.mu.tables[t.name] = t
	return map[string]any{"TableDescription": t.describe()}, nil
}

func (db *DB) describeTable(in *tableRequest) (any, error) {
	if err := checkTableName(in.TableName); err != nil {
		return nil, err
	}
	t := db.standing(in.TableName)
	if t == nil {
		e := tableNotFound()
		e.message += ": Table: " + in.TableName + " not found"
		return nil, e
	}
	return map[string]any{"Table": t.describe()}, nil
}

func (db *DB) deleteTable(in *tableRequest) (any, error) {
	if err := checkTableName(in.TableName); err != nil {
		return nil, err
	}
	t := db.standing(in.TableName)
	switch {
	case t == nil:
		e := tableNotFound()
		e.message += ": Table: " + in.TableName + " not found"
		return nil, e
	case t.status() == "CREATING":
		return nil, tableInUse("Attempt to change a resource which is still in use: Table is being created: %s", t.name)
	case t.status() == "DELETING":
		return nil, tableInUse("Attempt to change a resource which is still in use: Table is being deleted: %s", t.name)
	case t.protected:
		return nil, validation("Resource cannot be deleted as it is currently protected against deletion. Disable deletion protection first.")
	}
	t.deletedAt = time.Now()
	t.goneAt = t.deletedAt.Add(db.options.deleteDelay)
	description := t.describe()
	db.standing(t.name)
	return map[string]any{"TableDescription": description}, nil
}

func (db *DB) updateTable(in *tableRequest) (any, error) {
	t, err := db.existing(in.TableName)
	if err != nil {
		return nil, err
	}
	if t.status() != "ACTIVE" {
		return nil, tableInUse("Attempt to change a resource which is still in use: Table is being changed: %s", t.name)
	}
	defined, err := readAttributes(in.AttributeDefinitions)
	if err != nil {
		return nil, err
	}
	// All or nothing: the changes are collected before the first is made.
	indexes := slices.Clone(t.indexes)
	old := t.attributes
	t.attributes = maps.Clone(old)
	maps.Copy(t.attributes, defined)
	for _, change := range in.GlobalSecondaryIndexUpdates {
		switch {
		case change.Create != nil:
			x, err := t.newIndex(*change.Create, time.Now().Add(db.options.createDelay))
			if err != nil {
				t.attributes = old
				return nil, err
			}
			indexes = append(indexes, x)
		case change.Delete != nil:
			if t.index(change.Delete.IndexName) == nil {
				t.attributes = old
				return nil, tableNotFound()
			}
			indexes = slices.DeleteFunc(indexes, func(x *index) bool { return x.name == change.Delete.IndexName })
		}
	}
	t.indexes = indexes
	if in.BillingMode != "" {
		t.billing = in.BillingMode
	}
	if in.ProvisionedThroughput != nil {
		t.throughput = *in.ProvisionedThroughput
	}
	if in.DeletionProtectionEnabled != nil {
		t.protected = *in.DeletionProtectionEnabled
	}
	return map[string]any{"TableDescription": t.describe()}, nil
}

func (db *DB) listTables(in *tableRequest) (any, error) {
	limit := in.Limit
	if limit == 0 {
		limit = 100
	}
	if limit < 1 || limit > 100 {
		return nil, validation("1 validation error detected: Value '%d' at 'limit' failed to satisfy constraint: Member must have value between 1 and 100", limit)
	}
	names := []string{}
	for _, name := range slices.Sorted(maps.Keys(db.mu.tables)) {
		if name > in.ExclusiveStartTableName && db.standing(name) != nil {
			names = append(names, name)
		}
	}
	answer := map[string]any{"TableNames": names}
	if len(names) > limit {
		answer["TableNames"] = names[:limit]
		answer["LastEvaluatedTableName"] = names[limit-1]
	}
	return answer, nil
}

// continuousBackups answers Describe- and UpdateContinuousBackups.
func (db *DB) continuousBackups(in *tableRequest) (any, error) {
	if !db.options.backupsTags {
		return nil, unknownOperation()
	}
	t, err := db.existing(in.TableName)
	if err != nil {
		e := tableNotFound()
		e.shape = dynamoShape + "TableNotFoundException"
		return nil, e
	}
	if s := in.PointInTimeRecoverySpecification; s != nil {
		t.backups = s.PointInTimeRecoveryEnabled
	}
	status := "DISABLED"
	if t.backups {
		status = "ENABLED"
	}
	return map[string]any{"ContinuousBackupsDescription": map[string]any{
		"ContinuousBackupsStatus":        "ENABLED",
		"PointInTimeRecoveryDescription": map[string]any{"PointInTimeRecoveryStatus": status},
	}}, nil
}

// tagging answers TagResource, UntagResource and ListTagsOfResource.
func (db *DB) tagging(in *tableRequest) (any, error) {
	if !db.options.backupsTags {
		return nil, unknownOperation()
	}
	_, name, _ := strings.Cut(in.ResourceArn, "table/")
	t, err := db.existing(name)
	if err != nil {
		return nil, err
	}
	for _, tag := range in.Tags {
		t.tags[tag.Key] = tag.Value
	}
	for _, key := range in.TagKeys {
		delete(t.tags, key)
	}
	tags := []tag{}
	for _, key := range slices.Sorted(maps.Keys(t.tags)) {
		tags = append(tags, tag{key, t.tags[key]})
	}
	return map[string]any{"Tags": tags}, nil
}

// existing is a table in any status. The caller holds the lock.
func (db *DB) existing(name string) (*table, error) {
	if t := db.standing(name); t != nil {
		return t, nil
	}
	return nil, tableNotFound()
}

func (k keySchema) shape() []keyElement {
	out := []keyElement{{k.hash, "HASH"}}
	if k.sort != "" {
		out = append(out, keyElement{k.sort, "RANGE"})
	}
	return out
}

func (t *table) describe() map[string]any {
	definitions := []attributeDefinition{}
	for _, name := range slices.Sorted(maps.Keys(t.attributes)) {
		definitions = append(definitions, attributeDefinition{name, t.attributes[name]})
	}
	size := 0
	for _, r := range t.records {
		size += itemSize(r.item)
	}
	out := map[string]any{
		"TableName": t.name, "TableArn": t.arn, "TableId": t.id, "TableStatus": t.status(),
		"CreationDateTime":     float64(t.created.UnixMilli()) / 1000,
		"AttributeDefinitions": definitions, "KeySchema": t.keys.shape(),
		"ProvisionedThroughput": t.throughput.describe(),
		"ItemCount":             len(t.records), "TableSizeBytes": size,
		"DeletionProtectionEnabled": t.protected,
	}
	if t.billing == "PAY_PER_REQUEST" {
		// AWS leaves the summary out for tables that were never on demand.
		out["BillingModeSummary"] = map[string]any{"BillingMode": t.billing}
	}
	var indexes []map[string]any
	for _, x := range t.indexes {
		status := "ACTIVE"
		if time.Now().Before(x.activeAt) {
			status = "CREATING"
		}
		indexes = append(indexes, map[string]any{
			"IndexName": x.name, "IndexArn": t.arn + "/index/" + x.name, "IndexStatus": status, "Backfilling": status == "CREATING",
			"KeySchema": x.keys.shape(), "Projection": x.projection, "ProvisionedThroughput": x.throughput.describe(),
		})
	}
	if indexes != nil {
		out["GlobalSecondaryIndexes"] = indexes
	}
	return out
}

func (t throughput) describe() map[string]any {
	return map[string]any{"ReadCapacityUnits": t.ReadCapacityUnits, "WriteCapacityUnits": t.WriteCapacityUnits, "NumberOfDecreasesToday": 0}
}
