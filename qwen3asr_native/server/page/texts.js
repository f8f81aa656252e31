// What the page says, in its two languages.
const TEXTS = {
  en: {
    skip: "To the text", title: "Speech recognition", pageLanguage: "Page in", input: "Audio",
    dropHere: "Drop an audio file here", choose: "Choose a file", record: "Record", live: "Live", stop: "Stop",
    options: "Options", language: "Language", detect: "Detect", context: "Names and terms that may occur",
    traditional: "Traditional Chinese", itn: "Numbers as digits", key: "API key", result: "Text",
    uploading: "Sending …", recognizing: "Recognizing …", done: "Done.", recording: "Recording …", listening: "Listening …",
    stopped: "Stopped.", nothing: "No speech was found.", noMicrophone: "The microphone cannot be used: ",
    gone: "The server cannot be reached; is it running?", tooLarge: "The file is larger than this server takes: ",
    closed: "The connection to the server was closed.", playFrom: "Play from",
  },
  "zh-TW": {
    skip: "跳到文字", title: "語音辨識", pageLanguage: "網頁語言", input: "音訊",
    dropHere: "將音訊檔拖放到這裡", choose: "選擇檔案", record: "錄音", live: "即時", stop: "停止",
    options: "選項", language: "語言", detect: "自動偵測", context: "可能出現的名稱與術語",
    traditional: "繁體中文", itn: "數字寫成阿拉伯數字", key: "API 金鑰", result: "文字",
    uploading: "傳送中……", recognizing: "辨識中……", done: "完成。", recording: "錄音中……", listening: "聆聽中……",
    stopped: "已停止。", nothing: "沒有偵測到語音。", noMicrophone: "無法使用麥克風：",
    gone: "無法連線到伺服器，請確認伺服器是否已啟動。", tooLarge: "檔案超過伺服器的上限：",
    closed: "與伺服器的連線已中斷。", playFrom: "播放起點",
  },
};

let current = TEXTS.en;

export const say = (name) => current[name];

/** Writes all texts of the page in a language, and remembers it. */
export function speak(language) {
  current = TEXTS[language] ?? TEXTS.en;
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = current[element.dataset.text];
  localStorage.setItem("page-language", language);
}

export function preferred() {
  const kept = localStorage.getItem("page-language");
  if (kept in TEXTS) return kept;
  return navigator.languages.some((tag) => tag.toLowerCase().startsWith("zh")) ? "zh-TW" : "en";
}
