// Shows the OpenAPI document that the page names, with everything off that would speak to another origin.
const place = document.getElementById("reference");

Scalar.createApiReference(place, {
  url: place.dataset.openapi,
  metaData: { title: document.title },
  documentDownloadType: "none",
  telemetry: false,
  withDefaultFonts: false,
  persistAuth: false,
  hideClientButton: true,
  showDeveloperTools: "never",
  agent: { disabled: true },
  mcp: { disabled: true },
  // The original wording does not fit a telephone's width.
  localization: { translations: { apiClient: { authSelector: { selectedType: "{type}" } } } },
});
