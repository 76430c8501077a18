locals {
  topics = {
    requests = "Requests: a message contains one, or names a request file in the bucket"
    items    = "STAC items of new scenes, which start what standing requests make of them"
    status   = "Every status change of a run"
    progress = "Progress of runs, and periodic sweeps of all open runs"
    dead     = "Dead letters: messages that can never start a run, or that could not be delivered"
  }
  pubsub_agent = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"

  # subscription → topic and the function that it is pushed to
  pushes = {
    requests = { topic = "requests", function = "launch" }
    items    = { topic = "items", function = "launch" }
    progress = { topic = "progress", function = "report" }
  }
}

resource "google_pubsub_topic" "this" {
  #checkov:skip=CKV_GCP_83:Google-managed keys suffice, because messages are requests for public imagery and statuses of runs
  for_each = local.topics

  name                       = "${var.name}-${each.key}"
  labels                     = local.labels
  message_retention_duration = each.key == "dead" ? "1209600s" : "86400s"

  message_storage_policy {
    allowed_persistence_regions = [var.region]
  }

  depends_on = [google_project_service.used]
}

resource "google_pubsub_subscription" "push" {
  for_each = local.pushes

  name                       = "${var.name}-${each.key}"
  topic                      = google_pubsub_topic.this[each.value.topic].id
  labels                     = local.labels
  ack_deadline_seconds       = 120
  message_retention_duration = "86400s"

  push_config {
    # functions-framework derives the source of the event from the topic in the path.
    push_endpoint = "${google_cloud_run_v2_service.function[each.value.function].uri}/projects/${var.project}/topics/${var.name}-${each.value.topic}"

    oidc_token {
      service_account_email = google_service_account.this["events"].email
      audience              = google_cloud_run_v2_service.function[each.value.function].uri
    }
  }

  retry_policy {
    minimum_backoff = "10s"
    maximum_backoff = "600s"
  }

  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.this["dead"].id
    max_delivery_attempts = 20
  }

  expiration_policy {
    ttl = "" # never expires, however long the deployment is idle
  }
}

# Dead letters are kept for two weeks, so that they can be inspected.
resource "google_pubsub_subscription" "dead" {
  name                       = "${var.name}-dead"
  topic                      = google_pubsub_topic.this["dead"].id
  labels                     = local.labels
  message_retention_duration = "1209600s"

  expiration_policy {
    ttl = ""
  }
}

# The service agent of Pub/Sub forwards undeliverable messages to the dead-letter topic.
resource "google_pubsub_topic_iam_member" "dead_letters" {
  topic  = google_pubsub_topic.this["dead"].id
  role   = "roles/pubsub.publisher"
  member = local.pubsub_agent
}

resource "google_pubsub_subscription_iam_member" "dead_letters" {
  for_each     = google_pubsub_subscription.push
  subscription = each.value.id
  role         = "roles/pubsub.subscriber"
  member       = local.pubsub_agent
}

resource "google_pubsub_topic_iam_member" "publishers" {
  for_each = {
    launch_status   = { topic = "status", account = "launch" }
    launch_dead     = { topic = "dead", account = "launch" }
    report_status   = { topic = "status", account = "report" }
    worker_progress = { topic = "progress", account = "worker" }
  }
  topic  = google_pubsub_topic.this[each.value.topic].id
  role   = "roles/pubsub.publisher"
  member = google_service_account.this[each.value.account].member
}

resource "google_cloud_scheduler_job" "series" {
  name        = "${var.name}-series"
  description = "Launches passes of series that are due, and asks catalogs for scenes that nobody announced"
  schedule    = var.series.schedule
  time_zone   = "Etc/UTC"

  pubsub_target {
    topic_name = google_pubsub_topic.this["requests"].id
    attributes = { sweep = "series" }
  }

  depends_on = [google_project_service.used]
}

resource "google_cloud_scheduler_job" "sweep" {
  name        = "${var.name}-sweep"
  description = "Updates all open runs, and finds those whose job ended without a report"
  schedule    = "*/10 * * * *"
  time_zone   = "Etc/UTC"

  pubsub_target {
    topic_name = google_pubsub_topic.this["progress"].id
    attributes = { sweep = "true" }
  }

  depends_on = [google_project_service.used]
}
