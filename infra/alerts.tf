# Lines that the functions log: "failed demo-1a2b3c: reason" per run that fails, and "stale <id>: ..."
# at each check of a series that has made nothing for `series.stale_days`.
locals {
  alerts = {
    failed_runs = {
      description = "Runs that failed"
      condition   = "a run failed"
      services    = "(launch|report)"
      line        = "failed"
    }
    stale_series = {
      description = "Series without a new product for days"
      condition   = "a series makes nothing new"
      services    = "launch"
      line        = "stale"
    }
  }
}

resource "google_logging_metric" "alert" {
  for_each    = local.alerts
  name        = "${var.name}/${each.key}"
  description = each.value.description
  filter      = <<-EOT
    resource.type="cloud_run_revision"
    resource.labels.service_name=~"^${var.name}-${each.value.services}$"
    textPayload=~"^${each.value.line} "
  EOT

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
  }

  depends_on = [google_project_service.used]
}

resource "google_monitoring_notification_channel" "email" {
  for_each     = toset(var.alert_emails)
  display_name = "${var.name}: ${each.value}"
  type         = "email"
  labels       = { email_address = each.value }
}

resource "google_monitoring_alert_policy" "alert" {
  for_each              = local.alerts
  display_name          = "${var.name}: ${each.value.condition}"
  combiner              = "OR"
  notification_channels = [for channel in google_monitoring_notification_channel.email : channel.id]

  conditions {
    display_name = each.value.condition
    condition_threshold {
      filter          = "metric.type=\"logging.googleapis.com/user/${google_logging_metric.alert[each.key].name}\" AND resource.type=\"cloud_run_revision\""
      comparison      = "COMPARISON_GT"
      threshold_value = 0
      duration        = "0s"
      aggregations {
        alignment_period   = "300s"
        per_series_aligner = "ALIGN_SUM"
      }
    }
  }
}

moved {
  from = google_logging_metric.failed_runs
  to   = google_logging_metric.alert["failed_runs"]
}

moved {
  from = google_monitoring_alert_policy.failed_runs
  to   = google_monitoring_alert_policy.alert["failed_runs"]
}
