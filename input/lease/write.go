package lease

import (
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
)

// update is one conditional UpdateItem. Names and values enter it only when they are used: DynamoDB refuses a request
// with an unused one.
type update struct {
	key                 string
	sets, removes, adds []string
	conditions          []string
	names               map[string]string
	values              map[string]types.AttributeValue
}

func newUpdate(key string) *update {
	return &update{key: key, names: map[string]string{}, values: map[string]types.AttributeValue{}}
}

// name gives the placeholder of an attribute, so that no name can ever collide with DynamoDB's reserved words.
func (u *update) name(attr string) string {
	u.names["#"+attr] = attr
	return "#" + attr
}

func (u *update) value(placeholder string, v types.AttributeValue) string {
	u.values[placeholder] = v
	return placeholder
}

func (u *update) set(attr string, v types.AttributeValue) {
	u.sets = append(u.sets, u.name(attr)+" = "+u.value(":new_"+attr, v))
}

func (u *update) setIfAbsent(attr string, v types.AttributeValue) {
	n := u.name(attr)
	u.sets = append(u.sets, n+" = if_not_exists("+n+", "+u.value(":new_"+attr, v)+")")
}

func (u *update) add(attr string, n int64) {
	u.adds = append(u.adds, u.name(attr)+" "+u.value(":add_"+attr, number(n)))
}

func (u *update) remove(attrs ...string) {
	for _, a := range attrs {
		u.removes = append(u.removes, u.name(a))
	}
}

func (u *update) ifEqual(attr string, v types.AttributeValue) {
	u.conditions = append(u.conditions, u.name(attr)+" = "+u.value(":is_"+attr, v))
}

// ifAsSeen requires a string attribute to be as it was read, where "" means absent.
func (u *update) ifAsSeen(attr, seen string) {
	if seen == "" {
		u.conditions = append(u.conditions, "attribute_not_exists("+u.name(attr)+")")
		return
	}
	u.ifEqual(attr, text(seen))
}

func (u *update) ifExists(attr string) {
	u.conditions = append(u.conditions, "attribute_exists("+u.name(attr)+")")
}

// input is the request. ALL_NEW costs nothing and is what a run starts from; ALL_OLD on failure tells why.
func (u *update) input(table string) *dynamodb.UpdateItemInput {
	var expression []string
	for _, part := range []struct {
		verb  string
		parts []string
	}{{"SET", u.sets}, {"REMOVE", u.removes}, {"ADD", u.adds}} {
		if len(part.parts) > 0 {
			expression = append(expression, part.verb+" "+strings.Join(part.parts, ", "))
		}
	}
	in := &dynamodb.UpdateItemInput{
		TableName:                           aws.String(table),
		Key:                                 map[string]types.AttributeValue{attrKey: text(u.key)},
		UpdateExpression:                    aws.String(strings.Join(expression, " ")),
		ConditionExpression:                 aws.String(strings.Join(u.conditions, " AND ")),
		ExpressionAttributeNames:            u.names,
		ReturnValues:                        types.ReturnValueAllNew,
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	}
	if len(u.values) > 0 {
		in.ExpressionAttributeValues = u.values
	}
	return in
}

// ownership is what an owner's write is conditional on: the run, and the counter that the write moves on.
type ownership struct {
	key, worker, acquisition string
	counter                  int64
}

// bracket is what an owner's write stores beside the counter: a checkpoint with all that goes with one, or only the
// beginning of an epoch of de-duplication, or nothing.
type bracket struct {
	position checkpoint.Position // zero: the checkpoint is left alone, and with it everything that goes with one
	marks    *numberMarks
}

// ownerUpdate is the shape that KEEP and RELEASE share (r2).
func ownerUpdate(o ownership, b bracket) *update {
	position := b.position
	u := newUpdate(o.key)
	u.ifEqual(attrCounter, number(o.counter))
	u.ifEqual(attrOwner, text(o.worker))
	u.ifEqual(attrAcquisition, text(o.acquisition))
	u.set(attrCounter, number(o.counter+1))
	if !position.IsZero() {
		u.set(attrCheckpoint, text(position.Sequence))
		u.set(attrSub, number(position.Sub))
		u.set(attrSwitches, number(0))
		u.remove(attrPending, attrPendingSub, attrPendingState)
	}
	if b.marks != nil {
		b.marks.write(u)
	}
	return u
}

// keepUpdate renews a lease and stores a position with it, if there is one.
func keepUpdate(o ownership, b bracket) *update {
	return ownerUpdate(o, b)
}

// releaseUpdate stores the last position and leaves the lease to whoever wants it (r4.7). The acquisition stays behind,
// by which a lost answer is recognised.
func releaseUpdate(o ownership, b bracket) *update {
	u := ownerUpdate(o, b)
	u.remove(attrOwner, attrAsk, attrAskAt)
	return u
}

// takeUpdate makes worker the owner of a lease that looks exactly as it was seen (r3.5). A zero anchor leaves kp_start
// alone.
func takeUpdate(seen Lease, worker, acquisition, stream string, failover time.Duration, anchor time.Time) *update {
	u := newUpdate(seen.Key)
	u.ifEqual(attrCounter, number(seen.Counter))
	u.ifAsSeen(attrOwner, seen.Owner)
	u.ifAsSeen(attrCheckpointOwner, seen.CheckpointOwner)
	u.conditions = append(u.conditions,
		"(attribute_not_exists("+u.name(attrStream)+") OR "+u.name(attrStream)+" = :new_"+attrStream+")")
	u.set(attrOwner, text(worker))
	u.set(attrCounter, number(seen.Counter+1))
	u.set(attrAcquisition, text(acquisition))
	u.set(attrFailover, number(failover.Milliseconds()))
	u.set(attrStream, text(stream))
	if !anchor.IsZero() {
		u.setIfAbsent(attrStart, number(anchor.UnixMilli()))
	}
	u.remove(attrCheckpointOwner, attrAsk, attrAskAt)
	// As KCL counts: the first owner is no switch.
	if seen.Owner != "" && seen.Owner != worker {
		u.add(attrSwitches, 1)
	}
	return u
}
